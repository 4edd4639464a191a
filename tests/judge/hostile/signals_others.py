# Signals to everybody else, by every call that sends one.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got, information = [], ctypes.create_string_buffer(struct.pack("iii", 9, 0, -1) + bytes(116))
    for pid in (parent, os.getppid(), 1, 0, -1, -parent, 2):
        for number in (0, 9, 19):
            got += blocked(f"kill {pid}", (62, 129), pid, number) + blocked(f"tkill {pid}", (200, 130), pid, number)
            got += blocked(f"rt_sigqueueinfo {pid}", (129, 138), pid, number, information)
            got += blocked(f"rt_tgsigqueueinfo {pid}", (297, 240), pid, pid, number, information)
            if pid != os.getpid() and not (pid in (1, 2) and os.getpid() == pid):
                got += blocked(f"tgkill {pid}", (234, 131), pid, pid, number)
    return got + blocked("pidfd_send_signal", (424, 424), 0, 9, 0, 0)
