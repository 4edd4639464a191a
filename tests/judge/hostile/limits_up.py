# Lifts its limits.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE", "NPROC", "STACK", "DATA", "MEMLOCK", "NICE", "RTPRIO"):
        which = getattr(resource, f"RLIMIT_{name}")
        for values in ((-1, -1), resource.getrlimit(which)):
            got += tried(name, lambda: resource.setrlimit(which, values))
        got += blocked("prlimit64", (302, 261), 0, which, ctypes.create_string_buffer(16), 0)
        got += blocked("prlimit64", (302, 261), parent, which, 0, ctypes.create_string_buffer(16))
    return got + blocked("setrlimit", (160, 164), 0, ctypes.create_string_buffer(16))
