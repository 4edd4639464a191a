# Prints for ever.
# ruff: noqa
# outcome: OLE
def attack(outside, parent):
    while True:
        print("x" * 1000)
