# Waits for the end with atexit, finalizers and exit hooks that never end: none is asked.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    import atexit, weakref

    class Last:
        def __del__(self):
            while True:
                pass

    atexit.register(time.sleep, 1000)
    sys.last = Last()
    weakref.finalize(Last, time.sleep, 1000)
    threading._register_atexit(time.sleep, 1000)
    return []
