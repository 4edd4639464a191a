# Takes all memory, goes on when there is no more, and takes again: it stays within its limit.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    for _ in range(3):
        kept = []
        try:
            while True:
                kept.append(bytearray(1 << 20))
        except MemoryError:
            count = len(kept)
            kept.clear()
    return [f"{count} MB"] if count > 300 else []
