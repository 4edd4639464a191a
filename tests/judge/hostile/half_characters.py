# An exception of half characters and zeros, which no database takes.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    raise type("\ud800", (Exception,), {})("\ud800\0" * 5000)
