# Small pieces until there is no more.
# ruff: noqa
# outcome: MLE
def attack(outside, parent):
    kept = []
    while True:
        kept.append(bytearray(100_000))
