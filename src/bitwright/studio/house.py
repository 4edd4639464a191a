"""The running studio: the parts that every request can reach."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from bitwright.studio.config import Config
from bitwright.studio.content import Library
from bitwright.studio.db import Database
from bitwright.studio.runs import Runs
from bitwright.studio.workers import Worker


@dataclass
class House:
    """The running studio. `quick` answers what a page waits for, `runs` does long work in a process of its own."""

    config: Config
    library: Library
    database: Database
    quick: Worker
    runs: Runs


def house(connection: HTTPConnection) -> House:
    """The house a request came to."""
    found = connection.app.state.house
    assert isinstance(found, House)
    return found
