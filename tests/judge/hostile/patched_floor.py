# Takes away what the judge stands on in this process: builtins, json, struct, os, sys.
# ruff: noqa
# outcome: nothing RTE
def attack(outside, parent):
    import builtins, json

    for module in (json, struct, os, sys):
        for name in list(vars(module)):
            if name not in ("modules", "_getframe", "stdout", "stderr"):
                try:
                    setattr(module, name, None)
                except Exception:
                    pass
    for name in ("len", "isinstance", "type", "memoryview", "print", "str"):
        setattr(builtins, name, None)
    return []
