"""Test workers share the cores: each computes on its part of them, or all would wait for one another.

What is not marked `slow` is the quick tier, `make quick`. The marks follow measured time (`pytest --durations=0`), a
test or a parametrized family at a time, so that every part of the code keeps quick tests.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no bug
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    share = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(share)
    os.environ["OMP_NUM_THREADS"] = str(share)  # and so do the processes that tests start


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the lessons' pages is slow: the first that asks for them computes them, for minutes."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)  # or one worker ends alone with them
    for item in items:
        if "compiled" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


LIMIT = resource.getrlimit(resource.RLIMIT_DATA)


@pytest.fixture(autouse=True)
def _unlimited() -> Iterator[None]:
    """A memory limit in a worker's own process would hold for all tests after it; fixtures may set one, too."""
    yield
    assert resource.getrlimit(resource.RLIMIT_DATA) == LIMIT, "--max-ram belongs into a process of its own"
