# Parentheses as deep as they go.
# ruff: noqa
# outcome: CE
# generates: source
SOURCE = "def attack(outside, parent):\n    return " + "(" * 15000 + ")" * 15000 + "\n"
