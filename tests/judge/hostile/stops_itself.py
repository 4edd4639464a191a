# Stops itself, so that it never ends.
# ruff: noqa
# outcome: TLE
# wall: 0.5
def attack(outside, parent):
    call(234 if X86 else 131, os.getpid(), threading.get_native_id(), signal.SIGSTOP)
    return []
