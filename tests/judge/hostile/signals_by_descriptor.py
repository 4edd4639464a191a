# Lets a descriptor send signals: owners, leases, notices, terminals.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for handle in (0, 1, 2):
        for name, command in {
            "F_SETOWN": 8,
            "F_SETSIG": 10,
            "F_SETOWN_EX": 15,
            "F_SETLEASE": 1024,
            "F_NOTIFY": 1026,
            "F_SETLK": 6,
            "F_SETLKW": 7,
            "F_OFD_SETLK": 37,
            "F_SETPIPE_SZ": 1031,
            "F_ADD_SEALS": 1033,
            "F_SET_RW_HINT": 1036,
        }.items():
            got += blocked(name, (72, 25), handle, command, parent)
        for name, request in {
            "FIOASYNC": 0x5452,
            "FIOSETOWN": 0x8901,
            "SIOCSPGRP": 0x8902,
            "TIOCSTI": 0x5412,
            "TIOCSCTTY": 0x540E,
            "TIOCNOTTY": 0x5422,
            "TIOCLINUX": 0x541C,
        }.items():
            try:
                call(16 if X86 else 29, handle, request, ctypes.create_string_buffer(8))
                got.append(name)
            except OSError as error:
                got += [] if error.errno == errno.ENOTTY else [f"{name} {error.errno}"]
    return got
