# Recursion without end below Python, until the stack is used up.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    sys.setrecursionlimit(10**9)

    class Deep:
        def __repr__(self):
            return repr([self, Deep()])

    compile("-" * 5 + "1", "x", "eval")
    kept = ()
    for _ in range(200_000):
        kept = (kept,)
    return [hash(kept) and repr(Deep())]
