"""ONNX models: a reader that checks everything first, and a writer whose bytes depend on the model alone.

Format: https://onnx.ai/onnx/repo-docs/IR.html; tensors beyond 2 GB: https://onnx.ai/onnx/repo-docs/ExternalData.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bitwright.errors import FileError, ModelError, TensorError
from bitwright.files import qoperator
from bitwright.files.container import Counted, GraphContainer
from bitwright.files.containers import registry
from bitwright.files.layers import Floats, Layer
from bitwright.files.opset import CONVERTED_FROM, NEWEST, opset
from bitwright.files.plain import require_regular

LIMIT = 2**31 - 2**20
"""Bytes up to which a model is one file: protobuf ends at 2 GB."""
EXTERNAL = onnx.TensorProto.EXTERNAL
FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}
AGAIN = "Download or export it again"


def read(path: str | Path) -> onnx.ModelProto:
    """The model at `path`, its external tensors loaded, after checking all that can be wrong with it.

    Raises FileError where the file is absent, truncated, not ONNX, of an unsupported operator set, or lacks its
    external data; TensorError where a floating-point initializer holds NaN or Inf, naming tensor and index.
    """
    path = Path(path)
    model = _parse(path)
    version = opset(model)
    if version > NEWEST or version < CONVERTED_FROM:
        raise FileError(
            f"operator set {version} is not supported" if version else "no operator set of domain ai.onnx",
            where=str(path),
            fix=f"Export it with opset 13 to {NEWEST}",
            foreign=version > NEWEST,
        )
    _load_external(model, path)
    for tensor in tensors(model):
        _check_finite(tensor, path)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise ModelError("a folder, not an ONNX file", where=str(path), fix="Give the .onnx file in it")
    try:
        require_regular(path)
        data = path.read_bytes()
    except OSError as error:
        raise FileError(error.strerror or str(error), where=str(path), fix="Check the path") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError) as error:
        what = "empty" if not data else "not an ONNX file, or truncated"
        raise FileError(what, where=str(path), fix=AGAIN) from error
    if not model.ir_version or not (model.graph.node or model.graph.input or model.graph.output):
        raise FileError("empty" if not data else "not an ONNX model (no graph in it)", where=str(path), fix=AGAIN)
    return model


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers and tensor attributes, in subgraphs and functions too."""

    def of_nodes(nodes: object) -> Iterator[onnx.TensorProto]:
        for node in nodes:  # type: ignore[attr-defined]
            for a in node.attribute:
                if a.HasField("t"):
                    yield a.t
                yield from a.tensors
                for graph in [a.g] if a.HasField("g") else a.graphs:
                    yield from of_graph(graph)

    def of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from graph.initializer
        yield from of_nodes(graph.node)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def parameters(model: onnx.ModelProto) -> int:
    """Floating-point numbers that a model stores."""
    proto = onnx.TensorProto
    kinds = (proto.FLOAT, proto.FLOAT16, proto.BFLOAT16, proto.DOUBLE)
    return sum(prod(tensor.dims) for tensor in tensors(model) if tensor.data_type in kinds)


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    """Replace every reference to external data by the data (read in place: one copy in memory)."""
    for tensor in tensors(model):
        if tensor.data_location != EXTERNAL:
            continue
        info = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / info.get("location", "")
        where = f"{path}: {tensor.name}"
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise FileError(f"external data {info.get('location')} lies outside the model's folder", where=where,
                            fix="Move it next to the model")  # fmt: skip
        if not file.is_file():
            raise FileError(f"external data file {file.name} is missing", where=where,
                            fix=f"Put {file.name} next to {path.name}")  # fmt: skip
        size, begin = file.stat().st_size, int(info.get("offset", 0))
        length = int(info.get("length", size - begin))
        if begin + length > size:
            raise FileError(
                f"external data file {file.name} is truncated: the tensor ends at byte {begin + length}, the file at "
                f"{size}", where=where, fix=f"Download {file.name} again")  # fmt: skip
        with file.open("rb") as stream:
            stream.seek(begin)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _check_finite(tensor: onnx.TensorProto, path: Path) -> None:
    where = f"{path}: {tensor.name or 'constant'}"
    count = prod(tensor.dims)
    if tensor.HasField("raw_data") and tensor.data_type in FLOATS:
        itemsize = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        if len(tensor.raw_data) != count * itemsize:
            what = f"shape {list(tensor.dims)} needs {count * itemsize} bytes, {len(tensor.raw_data)} are stored"
            raise FileError(what, where=where, fix=AGAIN)
    if tensor.data_type not in FLOATS:
        return
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except ValueError as error:
        raise FileError(f"corrupt tensor ({error})", where=where, fix=AGAIN) from error
    if values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        # Attention masks and open limits are made of infinities and zeros alone; no weight is.
        bad = np.isnan(values) if (np.isinf(values) | (values == 0)).all() else bad
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise TensorError(
            f"{values[index]} at {list(index)} ({int(bad.sum())} of {values.size} values are not finite)",
            where=where,
            fix="Repair or train the model again; nothing sound comes out of it",
        )


def write(model: onnx.ModelProto, path: str | Path, *, limit: int = LIMIT) -> list[Path]:
    """Write `model` to `path`; the files written. Beyond `limit` bytes its tensors go to `path`.data beside it.

    The bytes depend on the model alone. `model` is left as it was.
    """
    path = Path(path)
    if model.ByteSize() <= limit:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    side = side_file(path)
    held: list[tuple[onnx.TensorProto, bytes]] = []
    try:
        with side.open("wb") as stream:
            for tensor in tensors(model):
                if not tensor.HasField("raw_data") or len(tensor.raw_data) < 1024:
                    continue
                data = tensor.raw_data
                stream.write(b"\0" * (-stream.tell() % 4096))
                onnx.external_data_helper.set_external_data(tensor, side.name, stream.tell(), len(data))
                stream.write(data)
                held.append((tensor, data))
                tensor.ClearField("raw_data")
        path.write_bytes(model.SerializeToString(deterministic=True))
    finally:
        for tensor, data in held:
            tensor.raw_data = data
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    return [path, side]


def files_of(path: Path) -> list[Path]:
    """The model's file, and those beside it in which tensors lie."""
    named = {e.value for t in tensors(_parse(path)) for e in t.external_data if e.key == "location"}
    return [path, *(path.parent / name for name in sorted(named))]


def side_file(path: Path) -> Path:
    """Where the tensors of the model at `path` lie when it is too large for one file."""
    return path.with_name(f"{path.name}.data")


def decode(model: onnx.ModelProto) -> dict[str, Floats]:
    """The float32 values of every constant that `model` stores as integers, by the name its readers use.

    Our own reading, container by container, so that a file can be checked without the runtime that runs it.
    """
    found = qoperator.decode(model)
    for container in registry.all():
        if isinstance(container, GraphContainer):
            found |= container.decode(model)
    return found


def counted(model: onnx.ModelProto) -> dict[str, Counted]:
    """How finely every constant that `decode` knows is stored, under the same names."""
    found: dict[str, Counted] = {}
    for container in registry.all():
        if isinstance(container, GraphContainer):
            found |= container.count(model)
    return found


def decode_layers(model: onnx.ModelProto, layers: Iterable[Layer]) -> dict[str, Floats]:
    """{weight name: its float32 values} of those `layers` whose weight `model` stores as integers.

    A weight that others read as it is, or that the network returns, keeps its name; its codes have another.
    """
    found, nodes = decode(model), {node.name: node for node in model.graph.node}
    names = {}
    for layer in layers:
        node = nodes.get(layer.node)
        read = node.input[layer.slot] if node is not None and len(node.input) > layer.slot else ""
        name = next((name for name in (layer.weight, read) if name in found), None)
        if name is not None and found[name].shape == tuple(layer.shape):
            names[layer.weight] = found[name]
    return names
