"""Running an ONNX network with ONNX Runtime on the CPU: outputs, latency, and where the time goes."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bitwright.errors import DataError, FileError, ModelError
from bitwright.files.onnx import LIMIT, write

Feeds = Mapping[str, npt.NDArray[np.generic]]
Results = dict[str, npt.NDArray[np.generic]]
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
INTEGER = (
    "QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
    "MatMulNBits",
)  # fmt: skip
PRODUCTS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN")
"""Float kernels that multiply matrices, as ONNX Runtime names them after its own fusions."""


class Session:
    """A network ready to run on the CPU."""

    def __init__(
        self, model: onnx.ModelProto | str | Path, *, threads: int = 0, optimize: bool = True, profile: str = "",
        dump: str | Path | None = None, where: str = "model",
    ) -> None:  # fmt: skip
        """Load a model or file. `threads` 0 takes as many as torch may; `optimize` False runs the nodes as written.

        `profile` is a path prefix for ONNX Runtime's own trace, `dump` a path for the model it makes of this one.
        `where` is what errors call a model that is not a file.
        Raises FileError for a file that is not there, ModelError for a model that ONNX Runtime refuses.
        """
        import onnxruntime  # type: ignore[import-untyped]

        if not threads:
            import torch

            threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Threads that wait by spinning steal the cores from whoever else has work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        if dump is not None:
            options.optimized_model_filepath = str(dump)
        where = where if isinstance(model, onnx.ModelProto) else str(model)
        try:
            with tempfile.TemporaryDirectory() as folder:
                source: bytes | str
                if not isinstance(model, onnx.ModelProto):
                    source = str(model)
                    if not Path(source).is_file():
                        raise FileError("no such file", where=source, fix="Check the path")
                elif model.ByteSize() <= LIMIT:
                    source = model.SerializeToString()
                else:
                    source = str(write(model, Path(folder) / "model.onnx")[0])
                self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except _refusals() as error:
            text = " ".join(str(error).split())[:300]
            unknown, absent = "is not a registered function/op" in text, "NOT_IMPLEMENTED" in text
            absent = absent or "tensor(bfloat16)" in text
            raise ModelError(
                f"ONNX Runtime refuses it: {text}", where=where,
                fix="Without that operator it cannot be run here; weights alone need no run: --activations none "
                "--method rtn" if unknown else "Export it in float32, for which it has all kernels" if absent
                else "Check the export",
            ) from error  # fmt: skip
        self.inputs: list[str] = [value.name for value in self._session.get_inputs()]
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]
        self.where = where

    def run(self, feeds: Feeds, names: Sequence[str] | None = None) -> Results:
        """{output name: array} of one batch of inputs; `names` limits the outputs. DataError where feeds do not fit."""
        wanted = self.outputs if names is None else list(names)
        try:
            values = self._session.run(wanted, {name: feeds[name] for name in self.inputs})
        except KeyError as error:
            fix = "Give an array for each input"
            raise DataError(f"no value for input {error.args[0]!r}", where=self.where, fix=fix) from error
        except _refusals() as error:
            text = " ".join(str(error).split())[:300]
            fix = "Give arrays as the network takes them"
            raise DataError(f"ONNX Runtime refuses the inputs: {text}", where=self.where, fix=fix) from error
        return dict(zip(wanted, values, strict=True))

    def end_profiling(self) -> Path:
        """The path of the trace that `profile` asked for."""
        return Path(self._session.end_profiling())


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime's C++ side, which share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]

    names = (
        "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NotImplemented RuntimeException EPFail NoModel"
    )
    kinds = (getattr(state, name, None) for name in names.split())
    return (RuntimeError, ValueError, *(kind for kind in kinds if kind is not None))


@dataclass(frozen=True)
class Latency:
    """Medians of one run in milliseconds, measured alternately; `ratio` = float / integer: above 1 the integers win."""

    float_ms: float
    integer_ms: float
    runs: int
    threads: int

    @property
    def ratio(self) -> float:
        """How many times faster the integer network is."""
        return self.float_ms / self.integer_ms


def latency(
    float_path: onnx.ModelProto | str | Path,
    int_path: onnx.ModelProto | str | Path,
    feeds: Feeds,
    repeat: int = 50,
    *,
    threads: int = 1,
    warmup: int = 5,
) -> Latency:
    """Run two networks on the same `feeds`, `repeat` times each in turn, so that both see the same machine."""
    sessions = [Session(float_path, threads=threads), Session(int_path, threads=threads)]
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(warmup + repeat):
        for j in (0, 1) if i % 2 else (1, 0):  # whoever runs second finds a warmer machine: take turns
            start = time.perf_counter()
            sessions[j].run(feeds)
            if i >= warmup:
                times[j].append((time.perf_counter() - start) * 1000)
    return Latency(float(np.median(times[0])), float(np.median(times[1])), repeat, threads)


@dataclass(frozen=True)
class Profile:
    """Where the time of one run goes, kernel by kernel, after ONNX Runtime's own optimisation.

    `counts` and `microseconds` (mean of a run) by kernel name. `integer_share` is the share of time in integer kernels,
    conversions excluded from neither side; `products` counts (integer, float) kernels that multiply matrices.
    """

    counts: dict[str, int]
    microseconds: dict[str, float]
    integer_nodes: tuple[str, ...]
    float_products: tuple[str, ...]

    @property
    def conversions(self) -> int:
        """QuantizeLinear and DequantizeLinear nodes that are left."""
        return sum(self.counts.get(op, 0) for op in CONVERSIONS)

    @property
    def total(self) -> float:
        """Microseconds of all kernels in one run."""
        return sum(self.microseconds.values())

    @property
    def integer_share(self) -> float:
        """Share of the time that integer kernels take, 0 to 1."""
        return self._share(lambda op: op.startswith(INTEGER))

    @property
    def conversion_share(self) -> float:
        """Share of the time that goes into conversions between float and integer, 0 to 1."""
        return self._share(lambda op: op in CONVERSIONS)

    def _share(self, keep: Any) -> float:
        return sum(t for op, t in self.microseconds.items() if keep(op)) / (self.total or 1.0)


def profile(path: onnx.ModelProto | str | Path, feeds: Feeds, repeat: int = 10, *, threads: int = 1) -> Profile:
    """Profile `repeat` runs (after one that does not count) with ONNX Runtime's tracer; its files are deleted."""
    times: defaultdict[str, float] = defaultdict(float)
    kernels: dict[str, str] = {}
    integer: dict[str, None] = {}
    products: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(path, threads=threads, profile=str(Path(folder) / "trace"))
        for _ in range(repeat + 1):
            session.run(feeds)
        events = json.loads(session.end_profiling().read_text("utf-8"))
    seen: Counter[str] = Counter()
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name, op = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        key = f"{name}#{event['args'].get('node_index', '')}"
        seen[key] += 1
        kernels[key] = op
        if op.startswith(INTEGER):
            integer[name] = None
        elif op in PRODUCTS:
            products[name] = None
        if seen[key] > 1:
            times[op] += event["dur"] / repeat
    return Profile(dict(Counter(kernels.values())), dict(times), tuple(integer), tuple(products))
