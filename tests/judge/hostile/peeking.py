# Looking into other processes, and into oneself as a debugger would.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got, spot = [], ctypes.create_string_buffer(64)
    for pid in (parent, os.getppid(), os.getpid(), 1):
        for request in (0, 16, 0x4206):  # TRACEME, ATTACH, SEIZE
            got += blocked(f"ptrace {request}", (101, 117), request, pid, 0, 0)
        vector = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(spot), 64))
        got += blocked("process_vm_readv", (310, 270), pid, vector, 1, vector, 1, 0)
        got += blocked("process_vm_writev", (311, 271), pid, vector, 1, vector, 1, 0)
        got += blocked("kcmp", (312, 272), pid, pid, 0, 0, 0) + blocked("pidfd_open", (434, 434), pid, 0)
        got += blocked("process_madvise", (440, 440), pid, vector, 1, 21, 0)
    return got + blocked("pidfd_getfd", (438, 438), 0, 0, 0)
