# Becomes another user, or leads a session.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for name, numbers in {
        "setuid": (105, 146),
        "setgid": (106, 144),
        "setreuid": (113, 145),
        "setregid": (114, 143),
        "setresuid": (117, 147),
        "setresgid": (119, 149),
        "setfsuid": (122, 151),
        "setfsgid": (123, 152),
        "setgroups": (116, 159),
        "setsid": (112, 157),
        "setpgid": (109, 154),
    }.items():
        got += blocked(name, numbers, 0, 0, 0)
    return got + [f"is {os.getuid()}"] * (os.getuid() == 0 or os.geteuid() == 0)
