# The reference solution, the tests, and the product itself, by path, by import and through what is loaded.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for base in outside:
        for path in (
            base,
            os.path.dirname(base),
            base + "/",
            os.path.dirname(base) + "/../" + os.path.basename(os.path.dirname(base)),
        ):
            got += tried("read " + path, lambda: open(path).read(1))
            got += tried("list " + path, lambda: os.listdir(path))
            got += tried("openat2", lambda: call(437, -100, path.encode(), ctypes.create_string_buffer(24), 24))
    for name in (
        "bitwright",
        "bitwright.judge.judge",
        "bitwright.judge.runner",
        "bitwright.content",
        "solution",
        "pytest",
        "pip",
    ):
        got += tried("import " + name, lambda: __import__(name))
    got += [name for name in sys.modules if name.startswith(("bitwright", "pip"))]
    return got + [
        path for path in sys.path if os.path.isdir(path) and tried(path, lambda: os.listdir(path + "/bitwright"))
    ]
