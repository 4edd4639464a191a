# A number with very many signs, which takes the compiler's stack.
# ruff: noqa
# outcome: CE nothing RTE
# generates: source
SOURCE = "def attack(outside, parent):\n    return []\nx = " + "-" * 60000 + "1\n"
