# Processes by every other door: fork, vfork, clone, clone3, spawn, exec.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = blocked("fork", (57, None)) + blocked("vfork", (58, None))
    for flags in (
        17,
        0x4100 | 17,
        0x100 | 17,
        0x10000000 | 17,
        0x20000000 | 17,
        0x40000000 | 17,
        0x1000 | 17,
        0x8000 | 17,
    ):
        got += blocked(f"clone {flags:x}", (56, 220), flags, 0, 0, 0, 0)
    for flags in (0x10000000, 0x20000, 0x40000000, 0x8000000, 0x1000):  # a thread in a namespace of its own
        got += blocked(f"clone thread {flags:x}", (56, 220), 0x10F00 | flags, 0, 0, 0, 0)
    got += blocked("clone3", (435, 435), ctypes.create_string_buffer(struct.pack("11Q", 0, 0, 0, 0, 17, *[0] * 6)), 88)
    got += blocked("execve", (59, 221), b"/bin/true", 0, 0) + blocked(
        "execveat", (322, 281), -100, b"/bin/true", 0, 0, 0
    )
    got += tried("posix_spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
    got += tried("exec", lambda: os.execv(sys.executable, ["python"]))
    return got + (["system"] if LIBC.system(b"true") == 0 else [])
