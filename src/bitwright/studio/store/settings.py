"""How the studio looks and what it tells, for each profile."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, ValidationError

from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import row_of
from bitwright.studio.store.schema import learners


class Settings(BaseModel):
    """How the studio looks and what it tells a learner."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    theme: Literal["auto", "light", "dark"] = "auto"
    motion: Literal["auto", "reduced"] = "auto"
    difficulty: bool = True
    """Show how difficult problems are."""
    streak: bool = True
    """Show days in a row."""


def load(db: Database, learner: int) -> Settings:
    """The settings of a profile, the usual ones where none were chosen or another version's do not fit."""
    with db.read() as connection:
        return parse(connection.scalar(sa.select(learners.c.settings).where(learners.c.id == learner)))


def parse(kept: dict[str, Any] | None) -> Settings:
    """Settings from what is kept of them."""
    given = {name: value for name, value in (kept or {}).items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        bad = {problem["loc"][0] for problem in error.errors()}
        return Settings.model_validate({name: value for name, value in given.items() if name not in bad})


def save(db: Database, learner: int, settings: Settings) -> None:
    """Keep the settings of a profile. InputError where there is no such profile."""
    with db.begin() as connection:
        row_of(connection, learner)
        keep(connection, learner, settings)


def keep(connection: sa.Connection, learner: int, settings: Settings) -> None:
    """`save` as a part of the caller's transaction."""
    mine = learners.c.id == learner
    kept = connection.scalar(sa.select(learners.c.settings).where(mine)) or {}
    others = {name: value for name, value in kept.items() if name not in Settings.model_fields}  # the tutor's server
    connection.execute(sa.update(learners).where(mine).values(settings={**others, **settings.model_dump()}))
