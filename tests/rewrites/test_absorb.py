"""Bias absorption: the function stays the same where nothing is clipped, and activations become narrower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe
from bitwright.models.network.session import Session
from bitwright.models.network.streams import find_streams
from bitwright.recipe import Network
from bitwright.rewrites import Subject, absorb
from tests import networks


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def test_absorbed_bias_changes_nothing_where_nothing_is_clipped() -> None:
    rng = np.random.default_rng(7)
    w1, w2 = rng.normal(0, 0.1, (6, 4)).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32)
    b1, b2 = np.array([3.0, 2.0, 0.1, -1, 0, 5], np.float32), rng.normal(size=3).astype(np.float32)
    x = rng.normal(size=(4, 500)).astype(np.float32)
    z = w1 @ x + b1[:, None]
    c = np.maximum(z.min(axis=1), 0)
    assert (c > 0).sum() == 3
    n1, n2 = absorb.absorb(b1, c, w2, b2)
    before, hidden = w2 @ relu(z) + b2[:, None], relu(w1 @ x + n1[:, None])
    np.testing.assert_allclose(w2 @ hidden + n2[:, None], before, rtol=1e-4, atol=1e-4)
    assert hidden.max() < 0.6 * relu(z).max()
    beta, gamma = np.array([4.0, 1.0], np.float32), np.array([-1.0, 1.0], np.float32)
    assert absorb.absorbable(beta, gamma).tolist() == [1.0, 0.0]
    share = (torch.randn(10**6, generator=torch.Generator().manual_seed(0)) * 1.0 + 4.0 > 1.0).double().mean()
    assert float(share) == pytest.approx(0.99865, abs=2e-4)


def test_absorbing_into_a_grouped_convolution() -> None:
    g = torch.Generator().manual_seed(1)
    w = torch.randn(4, 2 * 9, generator=g)
    c, x = torch.tensor([0.5, 1.0, 0.0, 2.0]), torch.rand(1, 4, 6, 6, generator=g) + 3
    b1, b2 = absorb.absorb(torch.zeros(4), c, w, torch.zeros(4), groups=2)
    kernel = w.reshape(4, 2, 3, 3)
    y = F.conv2d(x, kernel, groups=2)
    torch.testing.assert_close(F.conv2d(x + b1[:, None, None], kernel, b2, groups=2), y, rtol=1e-4, atol=1e-3)


def test_absorbing_in_a_network_keeps_its_function(tmp_path: Path) -> None:
    path = tmp_path / "mlp.onnx"
    onnx.save(networks.mlp(), path)
    graph = Graph.open(path)
    first = graph.layers[0]
    graph.set_bias(first, graph.bias(first) + 50)  # far above zero: the ReLU never cuts
    feeds = networks.feeds(graph.model, 16)
    before, seen = Session(graph.model).run(feeds), Observed()
    subject = Subject(graph, find_streams(graph), Network(absorb=True), {})
    list(observe(graph, [feeds], [], absorb.axes(subject), seen))
    notes = absorb.apply(subject, seen.channels)
    assert notes and float(graph.bias(graph.layer(first.name)).max()) < 50
    for name, value in Session(graph.model).run(feeds).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-2)
