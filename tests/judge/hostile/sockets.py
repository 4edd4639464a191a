# Sockets of every family and kind, pairs, and messages that carry descriptors.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for family in range(46):
        for kind in (1, 2, 3, 5):
            got += blocked(f"socket {family} {kind}", (41, 198), family, kind, 0)
    got += blocked("socketpair", (53, 199), 1, 1, 0, ctypes.create_string_buffer(8))
    for name, numbers in {
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
        "accept": (43, 202),
        "sendto": (44, 206),
        "sendmsg": (46, 211),
        "recvmsg": (47, 212),
        "recvfrom": (45, 207),
        "shutdown": (48, 210),
        "getsockopt": (55, 209),
        "setsockopt": (54, 208),
        "getpeername": (52, 205),
        "getsockname": (51, 204),
    }.items():
        got += blocked(name, numbers, 0, 0, 0, 0, 0)
    return got
