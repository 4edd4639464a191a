# Recursion without end.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    return attack(outside, parent)
