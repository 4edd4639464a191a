# A fork bomb: not even the first fork.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for _ in range(200):
        try:
            if os.fork() == 0:
                while True:
                    time.sleep(1)
            got.append("fork")
        except OSError:
            pass
    return got
