# A file written anywhere, new or old.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    folders = [
        "/",
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/run",
        "/home",
        "/root",
        ".",
        *map(os.path.dirname, outside),
        os.path.dirname(os.__file__),
    ]
    for folder in [*folders, *sys.path]:
        for flags in (os.O_WRONLY | os.O_CREAT, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TMPFILE):
            got += tried(
                f"write {folder}",
                lambda: os.open(folder if flags & os.O_TMPFILE == os.O_TMPFILE else f"{folder}/x", flags),
            )
    for path in (*outside, os.__file__, sys.executable):
        got += tried("change " + path, lambda: open(path, "r+b")) + tried(
            "truncate " + path, lambda: os.open(path, os.O_RDONLY | os.O_TRUNC)
        )
    return got
