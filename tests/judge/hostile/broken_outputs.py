# Closes and replaces Python's outputs.
# ruff: noqa
# outcome: nothing RTE
def attack(outside, parent):
    sys.stdout.close()
    sys.stderr = None
    sys.__stdout__ = object()
    return []
