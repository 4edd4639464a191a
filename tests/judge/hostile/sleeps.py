# Never ends, and does nothing.
# ruff: noqa
# outcome: TLE
# wall: 0.5
def attack(outside, parent):
    while True:
        time.sleep(1000)
