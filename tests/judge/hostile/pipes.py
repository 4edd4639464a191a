# Descriptors until there are no more, and as much as fits into pipes.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    pipes = []
    try:
        while True:
            pipes.append(os.pipe())
    except OSError:
        pass
    got = [f"{len(pipes)} pipes"] if len(pipes) > 16 else []
    for _, end in pipes:
        got += tried("a large pipe", lambda: fcntl.fcntl(end, 1031, 1 << 20))
    return got
