# Ends its main thread only; another sleeps on.
# ruff: noqa
# outcome: TLE
# wall: 0.5
def attack(outside, parent):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    call(60 if X86 else 93, 0)
