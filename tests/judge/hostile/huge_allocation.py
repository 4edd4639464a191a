# Ten gigabytes at once.
# ruff: noqa
# outcome: MLE
def attack(outside, parent):
    return len(bytearray(10**10))
