# Blocks in blocks.
# ruff: noqa
# outcome: CE
# generates: source
SOURCE = (
    "def attack(outside, parent):\n" + "".join(" " * i + " if 1:\n" for i in range(300)) + " " * 301 + "return []\n"
)
