# Parts of the kernel that no exercise needs: io_uring, keys, BPF, userfaultfd, perf, modules, clocks.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for name, numbers in {
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        "bpf": (321, 280),
        "userfaultfd": (323, 282),
        "perf_event_open": (298, 241),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "kexec_load": (246, 104),
        "reboot": (169, 142),
        "syslog": (103, 116),
        "settimeofday": (164, 170),
        "clock_settime": (227, 112),
        "adjtimex": (159, 171),
        "personality": (135, 92),
        "modify_ldt": (154, None),
        "iopl": (172, None),
        "quotactl": (179, 60),
        "acct": (163, 89),
        "swapon": (167, 224),
        "sethostname": (170, 161),
        "fanotify_init": (300, 262),
        "inotify_init1": (294, 26),
        "vhangup": (153, 58),
        "mbind": (237, 235),
        "move_pages": (279, 239),
        "seccomp": (317, 277),
        "landlock_create_ruleset": (444, 444),
        "vmsplice": (278, 75),
        "splice": (275, 76),
        "sendfile": (40, 71),
        "timer_create": (222, 107),
        "signalfd4": (289, 74),
        "remap_file_pages": (216, 234),
        "mlock": (149, 228),
        "mlockall": (151, 230),
        "pkey_alloc": (330, 289),
        "rt_sigsuspend": (130, 133),
    }.items():
        if name != "rt_sigsuspend":
            got += blocked(name, numbers, 0, 0, 0, 0, 0)
    return got
