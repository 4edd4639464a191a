# Puts its descriptors in another order, and looks for others.
# ruff: noqa
# outcome: nothing RTE
def attack(outside, parent):
    got = [f"descriptor {handle}" for handle in range(3, 2000) if not tried("", lambda: os.fstat(handle)) == []]
    for number in range(40):
        tried("", lambda: os.dup(0))
        tried("", lambda: os.dup2(0, 5 + number % 20))
    os.dup2(0, 1)
    os.dup2(2, 0)
    return got
