"""How a recurrent layer with 8-bit matrices can be written: size, speed and SQNR of each form beside float.

    python bench/recurrent.py

Forms: DequantizeLinear before the operator; Cast and Mul, which ONNX Runtime computes once when it loads the file; its
own DynamicQuantizeLSTM; and that as its quantize_dynamic writes it, with one scale per matrix. One thread, runs in
turn, medians; the SQNR is the lowest of all outputs, random weights and inputs.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from bitwright.core.measure import Error
from bitwright.models.network.session import Session, latency

GATES = {"LSTM": 4, "GRU": 3}
SHAPES = (("LSTM", 128, 128, 1), ("LSTM", 256, 256, 1), ("LSTM", 256, 80, 50), ("GRU", 256, 80, 50))
"""Operator, hidden size, inputs, steps."""


def layer(op, hidden, inputs, steps, form):
    """A network of one such layer, written in one of the forms."""
    rng = np.random.default_rng(0)
    shapes = {"w": (1, GATES[op] * hidden, inputs), "r": (1, GATES[op] * hidden, hidden)}
    matrices = {name: (rng.normal(size=s) * 0.7 / s[2] ** 0.5).astype(np.float32) for name, s in shapes.items()}
    stored = {"b": (rng.normal(size=(1, 2 * GATES[op] * hidden)) * 0.1).astype(np.float32)}
    nodes, read, more = [], ["x", "w", "r", "b"], []
    for name, w in matrices.items():
        scale = (np.abs(w).max(axis=2) / 127).astype(np.float32)
        codes = np.rint(w / scale[..., None]).astype(np.int8)
        if form == "float":
            stored[name] = w
        elif form == "DequantizeLinear":
            stored |= {f"{name}_codes": codes, f"{name}_scale": scale[0]}
            nodes.append(helper.make_node(form, [f"{name}_codes", f"{name}_scale"], [name], axis=1))
        elif form == "Cast and Mul":
            stored |= {f"{name}_codes": codes, f"{name}_scale": scale[..., None]}
            nodes.append(helper.make_node("Cast", [f"{name}_codes"], [f"{name}_cast"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]))
        else:
            stored |= {
                name: codes.swapaxes(1, 2),
                f"{name}_scale": scale,
                f"{name}_zero": np.zeros(scale.shape, np.int8),
            }
            more += [f"{name}_scale", f"{name}_zero"]
    outputs = ["y", "h", "c"][: 2 + (op == "LSTM")]
    kind, domain = ("DynamicQuantizeLSTM", "com.microsoft") if more else (op, "")
    given = [*read, "", "", "", "", *more] if more else read
    nodes.append(helper.make_node(kind, given, outputs, "layer", domain=domain, hidden_size=hidden))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, inputs])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def main():
    print("| layer | form | size | speed | SQNR (dB) |\n|---|---|---|---|---|")
    for op, hidden, inputs, steps in SHAPES:
        before = layer(op, hidden, inputs, steps, "float")
        forms = {form: layer(op, hidden, inputs, steps, form) for form in ("DequantizeLinear", "Cast and Mul")}
        if op == "LSTM":
            forms["DynamicQuantizeLSTM"] = layer(op, hidden, inputs, steps, "DynamicQuantizeLSTM")
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "dynamic.onnx"
                quantize_dynamic(before, out)
                forms["quantize_dynamic"] = onnx.load(out)
        feeds = {"x": np.random.default_rng(1).normal(size=(steps, 1, inputs)).astype(np.float32)}
        wanted = Session(before, threads=1).run(feeds)
        for form, after in forms.items():
            found = Session(after, threads=1).run(feeds)
            sqnr = min(Error.between(wanted[name], found[name]).sqnr for name in wanted)
            ratio = latency(before, after, feeds, 300).ratio
            size = after.ByteSize() / before.ByteSize()
            print(
                f"| {op} of {hidden}, {inputs} inputs, {steps} steps | {form} | {size:.0%} | {ratio:.2f} | {sqnr:.1f} |"
            )


if __name__ == "__main__":
    main()
