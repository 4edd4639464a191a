# A system call with a number from the far end.
# ruff: noqa
# outcome: nothing SIGSYS
def attack(outside, parent):
    return blocked("-2", (-2, -2)) + blocked("600", (600, 600))
