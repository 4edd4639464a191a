"""The running studio: the parts that every request can reach."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from bitwright.authoring.library import Library
from bitwright.authoring.problems import Statements
from bitwright.judge.problem import Shelf
from bitwright.studio.practice.judging import Judging
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.process import Worker
from bitwright.studio.store.database import Database
from bitwright.studio.workbench.runs import Runs


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
        Statements(config.data / "statements"),
    )


def house(connection: HTTPConnection) -> House:
    """The house a request came to."""
    found = connection.app.state.house
    assert isinstance(found, House)
    return found
