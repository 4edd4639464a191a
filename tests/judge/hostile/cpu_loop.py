# Never ends, and computes.
# ruff: noqa
# outcome: TLE
def attack(outside, parent):
    while True:
        pass
