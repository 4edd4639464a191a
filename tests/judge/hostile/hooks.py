# Audit hooks, traces and callbacks that fail at everything.
# ruff: noqa
# outcome: nothing RTE
def attack(outside, parent):
    def fail(*_):
        raise SystemExit("no")

    gc.callbacks.append(fail)
    gc.set_threshold(1)
    sys.setswitchinterval(1e-6)
    sys.settrace(fail)
    sys.unraisablehook = sys.excepthook = fail
    sys.addaudithook(fail)
    return []
