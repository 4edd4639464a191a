# The files of /proc that give a process away, its own memory first.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for pid in ("self", "thread-self", str(parent), "1", str(os.getppid())):
        for name in (
            "mem",
            "maps",
            "environ",
            "cmdline",
            "status",
            "fd/0",
            "root/etc/passwd",
            "cwd",
            "task",
            "uid_map",
            "oom_score_adj",
        ):
            got += tried(f"read {pid}/{name}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
        got += tried(f"write {pid}/mem", lambda: open(f"/proc/{pid}/mem", "r+b"))
        got += tried(f"list {pid}/fd", lambda: os.listdir(f"/proc/{pid}/fd"))
    for name in ("kcore", "kallsyms", "sysrq-trigger", "sys/kernel/hostname", "net/tcp", "mounts"):
        got += tried(name, lambda: open(f"/proc/{name}", "rb").read(1))
    return got + tried("list", lambda: os.listdir("/proc"))
