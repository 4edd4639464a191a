# Reads where there is nothing.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    return ctypes.string_at(0)
