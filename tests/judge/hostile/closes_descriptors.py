# Closes every descriptor, the channel too.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    os.closerange(0, 4096)
    return []
