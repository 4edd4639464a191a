# Kills itself, which is its right.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    call(234 if X86 else 131, os.getpid(), threading.get_native_id(), signal.SIGKILL)
    return []
