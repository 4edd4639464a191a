"""Test workers share the cores: each computes on its part of them, or all would wait for one another."""

from __future__ import annotations

import os

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
