# Source with a zero in it.
# ruff: noqa
# outcome: CE
# generates: source
SOURCE = "def attack(outside, parent):\n    return []\0\n"
