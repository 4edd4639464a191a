# A regular expression that tries everything.
# ruff: noqa
# outcome: TLE
def attack(outside, parent):
    import re

    return [bool(re.match(r"(a|a|aa)*b", "a" * 60))]
