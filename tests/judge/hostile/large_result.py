# Returns more than anybody will read.
# ruff: noqa
# outcome: OLE MLE
def attack(outside, parent):
    return "x" * (20 << 20)
