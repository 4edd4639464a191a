# Threads until there are no more: the limit of memory or of threads ends it, and they end with the run.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    count = 0
    try:
        for count in range(5000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except (RuntimeError, MemoryError):
        pass
    return [f"{count} threads"] if count > 100 else []
