"""Pieces in threads: their order, their errors, and the thread count they leave behind."""

from __future__ import annotations

import time

import pytest
import torch

from bitwright.parallel import in_order


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces(threads: int) -> None:
    taken: list[int] = []

    def work(start: int) -> int:
        time.sleep(0.003 * (start % 3))
        assert torch.get_num_threads() == 1
        return start

    in_order(work, range(40), taken.append)
    assert taken == list(range(40))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("where", ["work", "take"])
def test_an_error_is_raised_and_the_threads_are_given_back(where: str, threads: int) -> None:
    taken: list[int] = []

    def work(start: int) -> int:
        if where == "work" and start == 5:
            raise ValueError(f"piece {start}")
        return start

    def take(start: int) -> None:
        if where == "take" and start == 5:
            raise ValueError(f"piece {start}")
        taken.append(start)

    with pytest.raises(ValueError, match="piece 5"):
        in_order(work, range(40), take)
    assert taken == list(range(5))
    assert torch.get_num_threads() == threads
