"""The running studio: the parts that every request can reach."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from bitwright.judge.problem import Shelf
from bitwright.studio.config import Config
from bitwright.studio.content import Library
from bitwright.studio.db import Database
from bitwright.studio.judging import Judging
from bitwright.studio.runs import Runs
from bitwright.studio.statements import Statements
from bitwright.studio.workers import Worker


@dataclass
class House:
    """The running studio. `quick` answers what a page waits for, `runs` does long work in a process of its own,
    `judge` runs what learners write, `statements` are the texts of problems as pages show them."""

    config: Config
    library: Library
    database: Database
    quick: Worker
    runs: Runs
    judge: Judging
    statements: Statements

    @property
    def shelf(self) -> Shelf:
        """The problems."""
        return self.library.shelf


def build(config: Config, database: Database) -> House:
    """The parts of a studio, none of them started."""
    library = Library(config.content, config.data / "lessons")
    return House(
        config,
        library,
        database,
        Worker(),
        Runs(config, database),
        Judging(config, database, lambda: library.shelf),
        Statements(library, config.data / "statements"),
    )


def house(connection: HTTPConnection) -> House:
    """The house a request came to."""
    found = connection.app.state.house
    assert isinstance(found, House)
    return found
