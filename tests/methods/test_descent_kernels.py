"""The compiled loop: it rounds as every grid does, is kept between processes, and works where nothing can be kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.methods.descent import kernels
from bitwright.methods.gptq import Steps
from tests.methods.test_rtn import formats, label


def by_loop(x: np.ndarray, format: Format, scale: np.ndarray, zero: np.ndarray | None) -> np.ndarray:
    """Grid values [rows, columns] of `x` by error feedback with nothing to feed back."""
    rows, n = x.shape
    steps = Steps.of(format, scale, zero, np.arange(n), rows, n)
    values, decoded, none = np.zeros_like(x), np.zeros_like(x), np.empty((0, 0), np.float32)
    numbers = kernels.Numbers.of(steps, rows).columns(0, n)
    kernels.sweep(
        x.copy(), np.zeros_like(x), np.ones(n, np.float32), np.zeros((n, n), np.float32), np.arange(n, dtype=np.uintp),
        values, decoded, x, none, none, 0, *numbers,
    )  # fmt: skip
    return values


@pytest.mark.parametrize("format", formats(), ids=label)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rounds_as_the_grid(format: Format, seed: int) -> None:
    """Ties, their neighbours in float32, what lies beyond the ends, and anything between."""
    rng = np.random.default_rng(seed)
    grid = format.grid
    values = np.array(sorted({v for v in grid.values if v == v}), np.float32)
    ties = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    beside = [np.nextafter(ties, np.float32(toward)) for toward in (-np.inf, np.inf)]
    free = rng.normal(0, grid.top, 64).astype(np.float32)
    x = np.concatenate([values, ties, *beside, 3 * values, free, [0.0, -0.0, 1e30, -1e30]]).astype(np.float32)
    x = np.resize(x, (1, -(-len(x) // 96) * 96))
    scale = np.exp2(rng.integers(-3, 3, (1, x.shape[1] // format.block_size(x.shape[1])))).astype(np.float32)
    whole = rng.integers(int(grid.low), int(grid.high) + 1, scale.shape).astype(np.float32)
    zero = None if format.zero is None else whole
    steps = np.repeat(scale, x.shape[1] // scale.shape[1], axis=1)
    shift = 0 if zero is None else np.repeat(zero, x.shape[1] // scale.shape[1], axis=1)
    found = by_loop(x * steps, format, scale, zero)  # powers of two: the quotients are x again
    np.testing.assert_array_equal(found, grid.round(x + np.float32(shift)))


def test_a_scale_of_zero_divides_by_one() -> None:
    [format] = [f for f in formats() if f.name == "midrise2"]
    found = by_loop(np.full((1, 16), 0.3, np.float32), format, np.zeros((1, 1), np.float32), None)
    assert (found == 0.5).all()


CALL = """
import sys
sys.path[:0] = sys.argv[1:]
import numpy as np
try:
    import loops as kernels
except ImportError:
    from bitwright.methods.descent import kernels
from bitwright.core.formats import named
from bitwright.methods.gptq import Steps
x, one, none = np.full((2, 16), 0.7, np.float32), np.ones(16, np.float32), np.empty((0, 0), np.float32)
steps = Steps.of(named("int4", group=16), np.full((2, 1), 0.5, np.float32), None, np.arange(16), 2, 16)
values = x * 0
kernels.sweep(x, x * 0, one, np.eye(16, dtype=np.float32), np.arange(16, dtype=np.uintp), values, x * 0, x, none, none,
              0, *kernels.Numbers.of(steps, 2).columns(0, 16))
print(int(values.sum()), sum(kernels.sweep.stats.cache_hits.values()), sum(kernels.sweep.stats.cache_misses.values()))
"""


def call(*paths: Path, **environment: str) -> list[int]:
    """Sum of the values, loads from the cache and compilations of one call in a process of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA")} | environment
    command = [sys.executable, "-B", "-c", CALL, *map(str, paths)]
    done: Any = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_is_compiled_once_for_all_processes(tmp_path: Path) -> None:
    assert [call(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)] == [[32, 0, 1], [32, 1, 0]]


@pytest.mark.slow
def test_works_where_no_folder_can_be_written(tmp_path: Path) -> None:
    """The package's folder and the home are files where caches should be: for root, too, nothing can be kept."""
    shutil.copy(kernels.__file__, tmp_path / "loops.py")
    (tmp_path / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    home = str(tmp_path / "home")
    assert [call(tmp_path, HOME=home, XDG_CACHE_HOME=home) for _ in range(2)] == [[32, 0, 1], [32, 0, 1]]
    assert not (tmp_path / "__pycache__").is_dir()


@pytest.mark.slow
def test_a_command_that_solves_nothing_loads_no_compiler() -> None:
    code = "import sys, bitwright.library, bitwright.methods.descent.solver; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
