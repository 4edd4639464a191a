# Anonymous and shared mappings: both count.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        kept = []
        try:
            while len(kept) < 100:
                kept.append(mmap.mmap(-1, 16 << 20, flags=flags | mmap.MAP_ANONYMOUS))
        except (OSError, ValueError):
            pass
        got += [f"{16 * len(kept)} MB"] if len(kept) > 20 else []
        kept.clear()
    return got
