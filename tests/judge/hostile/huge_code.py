# As much code as is allowed, and as many constants.
# ruff: noqa
# outcome: nothing
# generates: source
SOURCE = (
    "def attack(outside, parent):\n    return []\n"
    + "\n".join(f"def f{i}(): return {i}.5, '{i}'" for i in range(1500))
    + "\n"
)
