"""LSTM, GRU and RNN with quantized matrices: ONNX Runtime says what they compute, before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.errors import CertificationError
from bitwright.files.layers import RECURRENT
from bitwright.library import check
from bitwright.models.network import verify
from bitwright.models.network.recurrent import dynamic_lstm, input_rows, state_rows
from bitwright.models.network.session import Session
from tests import jobs
from tests.networks import Net
from tests.test_networks_from_elsewhere import go_through, near, run

STEPS, INPUTS, HIDDEN = 7, 12, 16


def recurrent(
    op: str = "LSTM", ways: int = 1, *, lengths: bool = False, state: bool = False, peep: bool = False,
    outputs: str = "y", twice: bool = False, turn: str = "", **attributes: Any,
) -> Callable[[], onnx.ModelProto]:  # fmt: skip
    """A recurrent layer of `ways` directions on x [steps, batch, inputs]; `outputs` are those of y, h, c it has.

    `state` is fed, `peep`holes are stored, `twice` lets a second node read the matrices, too.
    """

    def make() -> onnx.ModelProto:
        n, gates = Net(), RECURRENT[op]
        w = n.weight(ways, gates * HIDDEN, INPUTS, scale=INPUTS**-0.5)
        r = n.weight(ways, gates * HIDDEN, HIDDEN, scale=0.6 * HIDDEN**-0.5)
        inputs = ["x", w, r, n.weight(ways, 2 * gates * HIDDEN), "lengths" if lengths else ""]
        inputs += ["h0", *(["cell0"] if op == "LSTM" else [])] if state else [""] * (1 + (op == "LSTM"))
        inputs += [n.weight(ways, 3 * HIDDEN)] if peep else []
        how = {"hidden_size": HIDDEN, "direction": turn or ("bidirectional" if ways == 2 else "forward"), **attributes}
        for i in range(1 + twice):
            names = [f"{name}{i or ''}" if name in outputs else "" for name in ("y", "h", "c")[: 3 - (op != "LSTM")]]
            read = [n.add("Neg", "x") if i else "x", *inputs[1:]]
            n.nodes.append(helper.make_node(op, read, names, f"layer{i or ''}", **how))
        size: list[Any] = [ways, "batch", HIDDEN]
        ends = {f"{o}{i or ''}": [STEPS, *size] if o == "y" else size for i in range(1 + twice) for o in outputs}
        shapes: dict[str, list[Any]] = {"x": [STEPS, "batch", INPUTS]}
        if state:
            shapes |= {name: [ways, "batch", HIDDEN] for name in ("h0", "cell0")[: 2 if op == "LSTM" else 1]}
        graph = helper.make_graph(
            n.nodes, "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
            + [helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"])] * lengths,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends.items()], n.stored,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    return make


def feeds(model: onnx.ModelProto, batch: int, seed: int = 1) -> dict[str, Any]:
    """Random inputs, [steps, batch, ...]."""
    rng, found = np.random.default_rng(seed), {}
    for value in model.graph.input:
        shape = [size.dim_value or batch for size in value.type.tensor_type.shape.dim]
        found[value.name] = rng.normal(size=shape).astype(np.float32)
        if value.type.tensor_type.elem_type == TensorProto.INT32:
            found[value.name] = (STEPS - np.arange(batch) % 4).astype(np.int32)
    return found


BATCH = {"x": 1, "h0": 1, "cell0": 1, "lengths": 0}
CASES = {
    "lstm": recurrent(),
    "lstm both ways": recurrent(ways=2, outputs="yhc"),
    "lstm backwards": recurrent(turn="reverse", outputs="hc"),
    "lstm lengths": recurrent(ways=2, lengths=True, outputs="yh"),
    "lstm state": recurrent(state=True, outputs="yhc"),
    "lstm peepholes": recurrent(ways=2, state=True, peep=True),
    "lstm clip": recurrent(clip=2.0),
    "lstm activations": recurrent(activations=["HardSigmoid", "Tanh", "Relu"]),
    "lstm last state": recurrent(outputs="c"),
    "gru": recurrent("GRU"),
    "gru both ways": recurrent("GRU", 2, lengths=True, state=True, outputs="yh"),
    "gru reset later": recurrent("GRU", linear_before_reset=1, outputs="h"),
    "rnn": recurrent("RNN", 2, lengths=True, state=True),
    "lstm twice": recurrent(twice=True),
    "gru twice": recurrent("GRU", twice=True),
}


def save(model: onnx.ModelProto, tmp: Path, samples: int = 24) -> None:
    """The network, its samples (first axis: samples) and a recipe that says where they lie in each input."""
    onnx.save(model, tmp / "net.onnx")
    names = [value.name for value in model.graph.input]
    np.savez(tmp / "data.npz", **{name: np.moveaxis(x, BATCH[name], 0) for name, x in feeds(model, samples).items()})
    axes = ", ".join(f"{name} = {BATCH[name]}" for name in names)
    (tmp / "recipe.toml").write_text(f"[network]\nbatch = {{ {axes} }}\n")


@pytest.mark.parametrize("case", CASES)
def test_from_plan_to_report(case: str, tmp_path: Path) -> None:
    model = CASES[case]()
    save(model, tmp_path)
    before, after = go_through(tmp_path, "--recipe {tmp}/recipe.toml")
    near(before, after, feeds(model, 3, seed=7))
    made = onnx.load(tmp_path / "out.onnx")
    ops = [node.op_type for node in made.graph.node if node.op_type.endswith(("LSTM", "GRU", "RNN"))]
    plain = case.startswith("lstm") and case not in ("lstm clip", "lstm activations")
    assert set(ops) == {"DynamicQuantizeLSTM" if plain else case.split()[0].upper()}
    big = [t.name for t in made.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 300]
    assert not big, "no matrix is left in float"


@pytest.mark.parametrize("op", RECURRENT)
@pytest.mark.parametrize("turn", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
def test_the_rows_of_both_matrices_make_the_layer(op: str, turn: str, lengths: bool) -> None:
    ways = 2 if turn == "bidirectional" else 1
    how = {"linear_before_reset": 1} if op == "GRU" else {}
    model = recurrent(op, ways, lengths=lengths, state=True, turn=turn, **how)()
    given, node = feeds(model, 3), model.graph.node[0]
    y = np.asarray(Session(model).run(given)["y"])
    w, r, b = (numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer)
    x = input_rows(node, given["x"], given.get("lengths"))
    h = state_rows(node, y, given["h0"], given.get("lengths"))
    inside = np.arange(STEPS)[:, None] < given.get("lengths", np.full(3, STEPS))
    assert x.shape[:2] == h.shape[:2] == (ways, inside.sum())
    for d in range(ways):
        a, c = x[d] @ w[d].T, h[d] @ r[d].T
        bias, gate = b[d], RECURRENT[op] * HIDDEN
        found = y[:, d][inside]
        if op == "RNN":
            assert np.allclose(np.tanh(a + c + bias[:gate] + bias[gate:]), found, atol=1e-5)
        elif op == "GRU":
            (za, ra, ha), (zc, rc, hc) = (np.split(v + q, 3, axis=1) for v, q in ((a, bias[:gate]), (c, bias[gate:])))
            z, reset = (1 / (1 + np.exp(-v)) for v in (za + zc, ra + rc))
            assert np.allclose((1 - z) * np.tanh(ha + reset * hc) + z * h[d], found, atol=1e-5)
        else:
            out = 1 / (1 + np.exp(-np.split(a + c + bias[:gate] + bias[gate:], 4, axis=1)[1]))
            assert (np.abs(found) <= out + 1e-5).all(), "the output gate is the most that comes out"


@pytest.mark.parametrize("peep", [False, True])
@pytest.mark.parametrize("turn", ["forward", "reverse", "bidirectional"])
def test_the_simulation_of_a_dynamic_lstm_is_the_runtimes(turn: str, peep: bool) -> None:
    ways = 2 if turn == "bidirectional" else 1
    model = recurrent(ways=ways, state=True, peep=peep, turn=turn, outputs="yhc")()
    given, stored = feeds(model, 3), {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    node = model.graph.node[0]
    values: list[Any] = [given.get(name, stored.get(name)) for name in node.input]
    names = list(node.input) + [""] * (8 - len(node.input))
    for slot in (1, 2):
        w = values[slot]
        scale = np.abs(w).max(axis=2) / 127
        codes = np.rint(w / scale[..., None]).astype(np.int8)
        values[slot] = codes * scale[..., None]
        new = {f"w{slot}": codes.swapaxes(1, 2), f"s{slot}": scale, f"z{slot}": np.zeros(scale.shape, np.int8)}
        model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(x), n) for n, x in new.items())
        names[slot] = f"w{slot}"
        names += [f"s{slot}", f"z{slot}"]
    del node.input[:]
    node.input.extend(names)
    node.op_type, node.domain = "DynamicQuantizeLSTM", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    runtime = Session(model, threads=1).run(given)  # more of them round parts of a batch
    for mine, theirs in zip(dynamic_lstm(node, values), runtime.values(), strict=True):
        assert np.abs(mine - theirs).max() < 1e-5


@pytest.mark.parametrize("method", ["rtn", "mse", "gptq", "adaround"])
def test_methods_see_what_each_matrix_multiplies(method: str, tmp_path: Path) -> None:
    model = recurrent("GRU", 2, lengths=True)()
    save(model, tmp_path)
    options = f"--recipe {tmp_path}/recipe.toml --method {method} --bits 4"
    before, after = go_through(tmp_path, options)
    near(before, after, feeds(model, 3, seed=7), least=12)
    report = run("report {tmp}/out.onnx --format json", tmp_path)
    assert '"fallback"' not in report and "instead of" not in report


def test_four_bits_are_packed_where_asked_for(tmp_path: Path) -> None:
    model = recurrent(ways=2)()
    save(model, tmp_path)
    with (tmp_path / "recipe.toml").open("a") as recipe:
        recipe.write('storage = "int4"\n')
    before, after = go_through(tmp_path, "--recipe {tmp}/recipe.toml --bits 4")
    near(before, after, feeds(model, 3, seed=7), least=12)
    made = onnx.load(tmp_path / "out.onnx")
    assert [t.data_type for t in made.graph.initializer].count(TensorProto.INT4) == 2
    assert "LSTM" in [node.op_type for node in made.graph.node]


def test_one_matrix_kept_float_and_one_scale_for_all(tmp_path: Path) -> None:
    model = recurrent()()
    save(model, tmp_path)
    with (tmp_path / "recipe.toml").open("a") as recipe:
        recipe.write('[layer]\ngroup = "tensor"\nmethod = "rtn"\n[[rules]]\nmatch = "layer.R"\nformat = "float"\n')
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml", tmp_path)
    assert "1 layer as int8_narrow tensor by rtn" in said
    assert "of LSTM the weights alone are quantized" in said and "anything that reads QDQ networks" in said
    near(*go_through(tmp_path, "--recipe {tmp}/recipe.toml"), feeds(model, 3, seed=7))
    assert sum(row.name == "layer.W" for row in check(tmp_path / "out.onnx", tmp_path / "net.onnx").rows) == 1


def test_a_matrix_shared_with_a_node_that_stays_float_is_kept_for_it(tmp_path: Path) -> None:
    model = recurrent("GRU", twice=True)()
    save(model, tmp_path)
    with (tmp_path / "recipe.toml").open("a") as recipe:
        recipe.write('[[rules]]\nmatch = "layer1"\nformat = "float"\n')
    before, after = go_through(tmp_path, "--recipe {tmp}/recipe.toml")
    given = feeds(model, 3, seed=7)
    wanted, found = before.run(given), after.run(given)
    assert np.array_equal(wanted["y1"], found["y1"]) and not np.array_equal(wanted["y"], found["y"])


def test_the_plan_says_what_runs_and_where(tmp_path: Path) -> None:
    save(recurrent(ways=2)(), tmp_path)
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml", tmp_path)
    assert "2 layers as int8_narrow channel by descent" in said
    assert "100% of the multiply-accumulates run in integers" in said and "DynamicQuantizeLSTM" in said
    assert "anything that reads QDQ networks" not in said and "ONNX Runtime" in said
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml --json", tmp_path)
    assert '"name": "layer.W", "rows": 128, "columns": 12' in said


def chosen(by: str) -> onnx.ModelProto:
    """A recurrent layer inside of a branch; `by` the rank of x, which is known, or by an input."""
    inner, n = recurrent()(), Net()
    n.stored += inner.graph.initializer  # so that names differ
    body = helper.make_graph(inner.graph.node, "then", [], inner.graph.output, inner.graph.initializer)
    shape = n.value([STEPS, 1, 1, HIDDEN], np.int64)
    still = helper.make_node("Expand", [n.value(np.zeros(1, np.float32)), shape], ["y"], "still")
    other = helper.make_graph([still], "else", [], inner.graph.output)
    condition = n.add("Equal", n.add("Size", n.add("Shape", "x")), n.value(3, np.int64)) if by == "rank" else "on"
    n.nodes.append(helper.make_node("If", [condition], ["z"], "choose", then_branch=body, else_branch=other))
    n.nodes.append(helper.make_node("MatMul", ["z", n.weight(HIDDEN, 4)], ["out"], "last"))
    ends = [*inner.graph.input, *([] if by == "rank" else [helper.make_tensor_value_info("on", TensorProto.BOOL, [])])]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    graph = helper.make_graph(n.nodes, "net", ends, out, n.stored[len(inner.graph.initializer) :])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_layer_in_a_branch_that_is_taken(tmp_path: Path) -> None:
    onnx.save(chosen("rank"), tmp_path / "net.onnx")
    x = feeds(chosen("rank"), 24)["x"]
    np.savez(tmp_path / "data.npz", x=x.swapaxes(0, 1))
    (tmp_path / "recipe.toml").write_text("[network]\nbatch = { x = 1 }\n")
    near(*go_through(tmp_path, "--recipe {tmp}/recipe.toml"), {"x": x[:, :3]})
    assert "DynamicQuantizeLSTM" in [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]


def test_a_layer_in_a_branch_that_an_input_chooses_stays_float_and_is_named(tmp_path: Path) -> None:
    onnx.save(chosen("input"), tmp_path / "net.onnx")
    x = feeds(chosen("rank"), 24)["x"]
    np.savez(tmp_path / "data.npz", x=x.swapaxes(0, 1), on=np.array(True))
    (tmp_path / "recipe.toml").write_text("[network]\nbatch = { x = 1 }\n")
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml", tmp_path)
    assert "1 layer as" in said and "layers inside of If, which is decided when the network runs" in said
    near(*go_through(tmp_path, "--recipe {tmp}/recipe.toml"), {"x": x[:, :3], "on": np.array(True)})
    last = onnx.load(tmp_path / "net.onnx")
    del last.graph.node[-1]
    last.graph.output[0].name = "z"
    onnx.save(last, tmp_path / "net.onnx")
    words = f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.npz --recipe {tmp_path}/recipe.toml"
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and "its layers lie inside of If, which input on chooses" in refused.output


def test_what_the_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    save(recurrent("GRU", layout=1)(), tmp_path)
    words = f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.npz --recipe {tmp_path}/recipe.toml"
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and "layout" in refused.output and "Traceback" not in refused.output
    assert len(refused.output.strip().splitlines()) == 1


def test_learned_steps_are_refused_before_anything_runs(tmp_path: Path) -> None:
    save(recurrent("GRU")(), tmp_path)
    words = f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.npz --recipe {tmp_path}/recipe.toml --method lsq"
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and "layer: learned step sizes" in refused.output and "GRU" in refused.output


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_a_stopped_run_ends_in_the_same_bytes(op: str, tmp_path: Path) -> None:
    save(recurrent(op, 2)(), tmp_path)
    tables: dict[str, Any] = {"data": {"source": str(tmp_path / "data.npz")}, "network": {"batch": {"x": 1}}}
    jobs.finish(jobs.made(tmp_path / "net.onnx", tmp_path / "whole.onnx", **tables))
    for count in range(1, 40):
        out = tmp_path / "stopped.onnx"
        seen = jobs.stop_after(jobs.made(tmp_path / "net.onnx", out, **tables), count)
        if out.exists():
            assert count > 5
            return
        jobs.finish(jobs.made(tmp_path / "net.onnx", out, **tables))
        assert out.read_bytes() == (tmp_path / "whole.onnx").read_bytes(), f"stopped after {seen[-1]}"
        for path in tmp_path.glob("stopped*"):
            path.unlink()
    raise AssertionError("more events than were stopped at")


def test_a_largest_drop_keeps_recurrent_layers_float_too(tmp_path: Path) -> None:
    model, n = recurrent(outputs="h")(), Net()
    n.nodes, n.stored = list(model.graph.node), list(model.graph.initializer)
    last = n.add("MatMul", n.add("Squeeze", "h", n.value([0], np.int64)), n.weight(HIDDEN, 5))
    save(n.model({"x": [STEPS, "batch", INPUTS]}, [last]), tmp_path)
    with (tmp_path / "recipe.toml").open("a") as recipe:
        recipe.write('[data]\ntask = "classify"\n')
    run("quantize {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml --bits 2 --max-drop 0.1 "
        "-o {tmp}/out.onnx", tmp_path)  # fmt: skip
    found = json.loads((tmp_path / "out.certificate.json").read_text())
    assert {"layer.W", "layer.R"} & set(found["kept_float"])


# ---- files of other tools -------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8])
def test_a_dynamic_lstm_of_another_tool_is_decoded_and_compared(
    kind: QuantType, per_channel: bool, tmp_path: Path
) -> None:
    onnx.save(recurrent(ways=2)(), tmp_path / "net.onnx")
    quantize_dynamic(tmp_path / "net.onnx", tmp_path / "out.onnx", weight_type=kind, per_channel=per_channel)
    found = check(tmp_path / "out.onnx", tmp_path / "net.onnx", watch=False)
    assert found.sound is True and "1 of 1 products quantized (1 DynamicQuantizeLSTM)" in str(found)
    assert [row.name for row in found.rows] == ["layer.W", "layer.R"] and all(row.sqnr > 35 for row in found.rows)


@pytest.mark.parametrize("op", RECURRENT)
def test_dequantize_linear_before_a_recurrent_layer_is_decoded(op: str, tmp_path: Path) -> None:
    model = recurrent(op)()
    onnx.save(model, tmp_path / "net.onnx")
    nodes = []
    for slot in (1, 2):
        name = model.graph.node[0].input[slot]
        tensor = next(t for t in model.graph.initializer if t.name == name)
        w = numpy_helper.to_array(tensor)
        scale = (np.abs(w).max(axis=(0, 2)) / 127).astype(np.float32)
        model.graph.initializer.remove(tensor)
        codes = {f"{name}_q": np.rint(w / scale[:, None]).astype(np.int8), f"{name}_s": scale}
        model.graph.initializer.extend(numpy_helper.from_array(x, key) for key, x in codes.items())
        nodes.append(helper.make_node("DequantizeLinear", list(codes), [name], name, axis=1))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "out.onnx")
    found = check(tmp_path / "out.onnx", tmp_path / "net.onnx", watch=False)
    assert found.sound is True and "1 of 1 products quantized" in str(found)
    assert [row.name for row in found.rows] == ["layer.W", "layer.R"] and all(row.sqnr > 35 for row in found.rows)


def test_codes_that_are_not_as_meant_are_not_certified(tmp_path: Path) -> None:
    save(recurrent()(), tmp_path)
    plan = jobs.made(tmp_path / "net.onnx", tmp_path / "out.onnx", data={"source": str(tmp_path / "data.npz")},
                     network={"batch": {"x": 1}})  # fmt: skip
    jobs.finish(plan)
    stored = onnx.load(plan.out)
    codes = next(t for t in stored.graph.initializer if t.name.endswith("_quantized"))
    x = numpy_helper.to_array(codes).copy()
    x[0, 0, 0] -= np.sign(x[0, 0, 0]) or 1
    codes.CopyFrom(numpy_helper.from_array(x, codes.name))
    graph, sink = plan.model.graph, plan.sink  # type: ignore[attr-defined]
    with pytest.raises(CertificationError, match="do not decode to what was meant"):
        verify.check_weights(graph, sink, stored)
