# Waits for more on the channel: there is no more.
# ruff: noqa
# outcome: TLE
# wall: 0.5
def attack(outside, parent):
    return [os.read(0, 100).decode()]
