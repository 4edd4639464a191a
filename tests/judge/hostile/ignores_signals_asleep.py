# Blocks every signal, and sleeps.
# ruff: noqa
# outcome: TLE
# wall: 0.5
def attack(outside, parent):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1000)
