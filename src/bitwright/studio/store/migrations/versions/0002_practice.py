"""Practice: drafts, notes, own tests, hints seen, submissions and cards. It imports nothing of the program's."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of practice."""
    for name, text in (("drafts", "code"), ("notes", "text")):
        _table(
            name,
            sa.Column(text, sa.Text(), nullable=False),
            sa.Column("moment", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("learner", "problem", name=f"pk_{name}"),
        )
    _table(
        "own_tests",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_own_tests"),
        numbered=True,
    )
    op.create_index("ix_own_tests_learner_problem", "own_tests", ["learner", "problem"])
    _table(
        "hints",
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("moment", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("learner", "problem", "number", name="pk_hints"),
    )
    _table(
        "submissions",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("moment", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.Integer()),
        sa.Column("verdict", sa.String(3)),
        sa.Column("result", sa.JSON()),
        sa.Column("cpu", sa.Float()),
        sa.Column("memory", sa.BigInteger()),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("rank", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_submissions"),
        numbered=True,
    )
    op.create_index("ix_submissions_learner_problem", "submissions", ["learner", "problem"])
    op.create_index("ix_submissions_problem_verdict", "submissions", ["problem", "verdict"])
    _table(
        "cards",
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("due", sa.String(10), nullable=False),
        sa.PrimaryKeyConstraint("learner", "problem", name="pk_cards"),
    )


def _table(name: str, *columns: Any, numbered: bool = False) -> None:
    """A table of what a learner did with a problem; `numbered` rows have ids."""
    key = sa.ForeignKeyConstraint(["learner"], ["learners.id"], name=f"fk_{name}_learner_learners", ondelete="CASCADE")
    learner = sa.Column("learner", sa.Integer(), nullable=False)
    both = (learner, sa.Column("problem", sa.Text(), nullable=False))
    if numbered:
        id = sa.Column("id", sa.Integer(), nullable=False)
        op.create_table(name, id, *both, *columns, key, sqlite_autoincrement=True)
    else:
        op.create_table(name, *both, *columns, key)
