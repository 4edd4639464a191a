# A power that nobody can write down.
# ruff: noqa
# outcome: TLE MLE
def attack(outside, parent):
    return 9**9**9
