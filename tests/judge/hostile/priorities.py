# Takes more of the processor than is its due.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = blocked("setpriority", (141, 140), 0, 0, 5) + blocked(
        "sched_setscheduler", (144, 119), 0, 1, ctypes.create_string_buffer(4)
    )
    got += blocked("sched_setparam", (142, 118), 0, ctypes.create_string_buffer(4)) + blocked(
        "ioprio_set", (251, 30), 1, 0, 0
    )
    got += blocked("sched_setattr", (314, 274), 0, ctypes.create_string_buffer(64), 0)
    got += blocked("sched_setaffinity", (203, 122), 0, 8, ctypes.create_string_buffer(b"\xff" * 8))
    return got + tried("nice", lambda: os.nice(1))
