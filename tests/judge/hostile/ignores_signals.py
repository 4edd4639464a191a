# Ignores every signal that can be ignored, and computes on: the second limit cannot be ignored.
# ruff: noqa
# outcome: TLE
# wall: 8
def attack(outside, parent):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        pass
