"""Content with two small problems, for tests of practice: `double` (plain), and `fewer-bits` with a leaderboard."""

from __future__ import annotations

from pathlib import Path

HEAD = """+++
title = "{title}"
collection = "first"
difficulty = "easy"
minutes = 5
tags = ["arrays"]
function = "{function}"
needs = "plain"
{more}+++
"""
DOUBLE = {
    "problem.md": HEAD.format(title="Double it", function="double", more="")
    + "Return `numbers`, each of them doubled: $y_i = 2 x_i$.\n\n[[ samples ]]\n\n- There may be none.\n",
    "hints.md": "## Hint\nOne $x$.\n\n## Hint\nTwo.\n\n## Hint\nThree.\n\n## Approach\nAdd each to **itself**.\n",
    "starter.py": "def double(numbers: list[int]) -> list[int]:\n    raise NotImplementedError\n",
    "solution.py": 'def double(numbers):\n    """Doubled."""\n    return [2 * x for x in numbers]\n',
    "cases.py": "def samples():\n    return [('three', ([1, 2, 3],), 'Each on its own')]\n\n\n"
    "def hidden():\n    return [('none', ([],)), ('negative', ([-4],)), ('a zero', ([0, 5],)), "
    "('large', ([10**12],))]\n\n\n"
    "def generate(rng, size):\n    return ([rng.randint(-9, 9) for _ in range(size)],)\n",
    "explain.toml": 'idea = "Twice each."\n\n[mistakes.squares]\nverdict = "WA"\nname = "Squares"\n'
    'says = "It squares."\nnext = "Look at three."\n',
    "wrong/squares.py": "def double(numbers):\n    return [x * x for x in numbers]\n",
}
FEWER = {
    **DOUBLE,
    "problem.md": HEAD.format(title="Fewer bits", function="code", more='[check]\nkind = "custom"\n')
    + "Any codes will do.\n",
    "starter.py": "def code(numbers: list[int]) -> list[int]:\n    raise NotImplementedError\n",
    "solution.py": "def code(numbers):\n    return list(numbers)\n",
    "check.py": "def check(arguments, expected, yours):\n"
    "    return None if len(yours) == len(expected) else 'another length'\n",
    "rank.py": '"""Closeness, dB."""\n\n\ndef rank(arguments, yours):\n'
    "    [numbers] = arguments\n    wrong = sum(abs(a - b) for a, b in zip(numbers, yours))\n"
    "    return -float(wrong), float(max((abs(x).bit_length() for x in yours), default=0))\n",
    "explain.toml": 'idea = "Fewer."\n',
}
del FEWER["wrong/squares.py"]
RIGHT = DOUBLE["solution.py"]
WRONG = DOUBLE["wrong/squares.py"]


def write(folder: Path) -> Path:
    """The content folder."""
    for slug, files in (("double", DOUBLE), ("fewer-bits", FEWER)):
        for name, text in files.items():
            path = folder / "problems" / slug / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (folder / "collections.toml").write_text(
        '[[collections]]\nslug = "first"\ntitle = "First"\nsummary = "S."\n'
        'problems = ["double", "fewer-bits", "broken"]\n\n'
        '[[collections]]\nslug = "empty"\ntitle = "Empty"\nsummary = "S."\nproblems = []\n'
    )
    question = '\n```question\nask = "Which?"\noptions = ["a", "b"]\nanswer = 2\nwhy = "So."\n```\n'
    for slug in ("one", "two"):
        (folder / "lessons" / slug).mkdir(parents=True)
        text = f'+++\ntitle = "Lesson {slug}"\nlead = "It teaches."\n+++\nText.\n'
        (folder / "lessons" / slug / "lesson.md").write_text(text + question)
    (folder / "chapters.toml").write_text(
        'title = "Plan"\nsummary = "All."\n[[chapters]]\n'
        'slug = "c"\ntitle = "C"\nsummary = "S"\nlessons = ["one", "two"]\n'
    )
    (folder / "features.toml").write_text(
        '[[features]]\nslug = "f"\ntitle = "F"\ntext = "T"\ncommand = "bitwright demo"\n'
    )
    return folder
