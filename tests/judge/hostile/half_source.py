# Source of half characters.
# ruff: noqa
# outcome: CE
# generates: source
SOURCE = "def attack(outside, parent):\n    return ['\ud800']\n"
