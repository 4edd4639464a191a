# Timers that interrupt for ever.
# ruff: noqa
# outcome: nothing TLE RTE
# wall: 3
def attack(outside, parent):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    return blocked("timer_create", (222, 107), 0, 0, ctypes.create_string_buffer(8))
