"""Bytes of a model at rest and at work: weights by role, the file they lie in, the cache, and what decoding reads."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, explore, still
from bitwright.authoring.filters import significant
from bitwright.authoring.trace import run_code
from bitwright.core.formats import named
from bitwright.files.safetensors import read_header

FILE = lab.MODEL / "model.safetensors"
TENSOR = "model.layers.1.mlp.down_proj.weight"
STORED = {"16": "BF16", "8": "Blocks in INT8", "4": "Blocks in INT4"}
PROGRAM = f"""
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + n])
entry = header["{TENSOR}"]
begin, end = entry["data_offsets"]
at = 8 + n + begin
low, high = data[at : at + 2]
pattern = high << 8 | low
value = struct.unpack("<f", struct.pack("<I", pattern << 16))[0]
"""


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family, as its config.json gives it."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    def matrices(self) -> dict[str, list[tuple[int, int]]]:
        """Rows and columns of one block's matrices by role."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        attention = [(queries, self.hidden), (keys, self.hidden), (keys, self.hidden), (self.hidden, queries)]
        return {"attention": attention, "MLP": [(self.inner, self.hidden)] * 2 + [(self.hidden, self.inner)]}

    def parameters(self) -> dict[str, int]:
        """Parameters by role; a tied head is the embedding."""
        blocks = {role: self.layers * sum(r * c for r, c in each) for role, each in self.matrices().items()}
        table = self.vocabulary * self.hidden
        return {
            "embedding": table,
            **blocks,
            "norms": (2 * self.layers + 1) * self.hidden,
            "head": 0 if self.tied else table,
        }

    def bytes(self, bits: int) -> dict[str, float]:
        """Bytes by role; below 16 bits block matrices are integers with an fp16 scale for 128 weights (INT8: a row)."""
        stored = {role: 2.0 * count for role, count in self.parameters().items()}
        if bits < 16:
            format = named(f"int{bits}", group=128 if bits == 4 else "channel")
            for role, each in self.matrices().items():
                stored[role] = self.layers * sum(format.stored_bits(*shape) for shape in each) / 8
        return stored

    def read(self, bits: int) -> float:
        """Bytes of weights that one step of decoding reads: all but the embedding, of which a row a token is read."""
        stored = self.bytes(bits)
        return sum(stored.values()) - (0 if self.tied else stored["embedding"])

    @property
    def cache(self) -> int:
        """Bytes of keys and values in BF16 for one token."""
        return 2 * self.layers * self.kv_heads * self.head * 2


SHAPES = {
    "demo": Shape("the bundled model", 256, 512, 3, 4, 4, 64, 1024, True),
    "1B": Shape("Llama 3.2 1B", 2048, 8192, 16, 32, 8, 64, 128256, True),
    "8B": Shape("Llama 3.1 8B", 4096, 14336, 32, 32, 8, 128, 128256, False),
}
MACHINES = {"laptop": ("a laptop", 0.1e12, 2e12), "server": ("a server GPU", 3.35e12, 989e12)}
"""Name, bytes and operations per second: two channels of DDR5 and a few cores; H100 SXM, dense BF16."""


def size(count: float) -> str:
    """Bytes to read."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{significant(count / factor)} {unit}"
    return f"{count:.0f} bytes"


def shares() -> Figure:
    """Bytes by role, in per cent of the BF16 file, for three models and three ways to store the blocks."""

    def view(model: str, stored: str) -> dict[str, Any]:
        shape = SHAPES[model]
        whole = sum(shape.bytes(16).values())
        now = shape.bytes(int(stored))
        total = sum(now.values())
        table = now["embedding"] + now["head"]
        return {
            "bars": [
                {
                    "id": role,
                    "label": role if role != "head" or not shape.tied else "head (the embedding again)",
                    "value": 100 * count / whole,
                    "text": f"{size(count)}, {100 * count / total:.2g} %" if count else "0 bytes",
                    "tone": "quant" if role in ("attention", "MLP") and stored != "16" else "float",
                }
                for role, count in now.items()
            ],
            "high": 75.0,
            "x": "per cent of the BF16 model",
            "say": f"{shape.name}, {STORED[stored]}: {size(total)}, of which {100 * table / total:.0f} % are embedding "
            "and head.",
            "readouts": [
                {"label": "All weights", "value": size(total)},
                {"label": "Smaller than BF16", "value": f"{whole / total:.2f} times", "tone": "good"},
                {"label": "Embedding and head", "value": f"{100 * table / total:.0f} %", "tone": "float"},
            ],
        }

    return explore(
        view,
        model=Choice(
            label="Model", options={"demo": "Bundled", "1B": "Llama 3.2 1B", "8B": "Llama 3.1 8B"}, start="demo"
        ),
        stored=Choice(label="Stored as", options=STORED, start="16"),
    )


def one_weight(low: int, high: int, value: float) -> Figure:
    """Two bytes of the file, and the number that they are."""
    joined = f"{high << 8 | low:016b}"

    def whole(identity: str, label: str, bits: str, text: str) -> dict[str, Any]:
        fields = [
            {"label": "sign", "bits": bits[0], "tone": "ink"},
            {"label": "exponent", "bits": bits[1:9], "tone": "quant"},
            {"label": "mantissa", "bits": bits[9:], "tone": "float"},
        ]
        return {"id": identity, "label": label, "fields": fields, "value": text}

    exponent, mantissa = int(joined[1:9], 2), int(joined[9:], 2)
    minus = "−" if joined[0] == "1" else ""
    steps = f"{minus}2^({exponent} − 127) × (1 + {mantissa}/128)"
    byte = [
        {
            "id": name,
            "label": f"{name} byte",
            "fields": [{"label": "", "bits": f"{x:08b}", "tone": "mute"}],
            "value": hex(x),
        }
        for name, x in (("first", low), ("second", high))
    ]
    told = f"Bytes {hex(low)} and {hex(high)} make the BF16 number {significant(value)}."
    return still(words=[*byte, whole("bf16", "second, first", joined, steps)], say=told)


def caches() -> Figure:
    """Weights and key-value cache against context length."""
    lengths = [2**k for k in range(7, 18)]
    shape = SHAPES["8B"]

    def view(stored: str, batch: int) -> dict[str, Any]:
        weights = sum(shape.bytes(int(stored)).values())
        cross = weights / (shape.cache * batch)
        return {
            "x": Axis(label="tokens of context, each sequence", low=100, high=150_000, log=True),
            "y": Axis(label="memory", low=1e7, high=3e12, log=True, unit="bytes"),
            "series": [
                Series(
                    name="weights",
                    tone="float" if stored == "16" else "quant",
                    line=True,
                    points=tuple(Point(id=f"w{t}", x=t, y=weights) for t in lengths),
                ),
                Series(
                    name="KV cache",
                    tone="warn",
                    shape="square",
                    line=True,
                    points=tuple(Point(id=f"c{t}", x=t, y=shape.cache * batch * t) for t in lengths),
                ),
            ],
            "say": f"{STORED[stored]}, {batch} sequence{'s' if batch > 1 else ''}: the cache passes the weights at "
            f"{significant(cross, 2)} tokens.",
            "readouts": [
                {"label": "Weights", "value": size(weights), "tone": "quant"},
                {"label": "Cache a token", "value": size(shape.cache * batch), "tone": "warn"},
                {"label": "Equal at", "value": f"{significant(cross, 2)} tokens"},
            ],
        }

    return explore(
        view,
        stored=Choice(label="Weights", options=STORED, start="16"),
        batch=Slider(label="Sequences at once", values=(1, 4, 16, 64), start=1),
    )


def speed(shape: Shape, bits: int, batch: int, bandwidth: float, operations: float, context: int) -> float:
    """Tokens a second of all sequences together at most: by memory or by arithmetic, whichever is slower."""
    parameters = shape.parameters()
    used = sum(parameters.values()) - (0 if shape.tied else parameters["embedding"])
    memory = bandwidth / (shape.read(bits) + batch * context * shape.cache)
    return batch * min(memory, operations / (2 * used * batch))


def roofline() -> Figure:
    """Tokens a second against the number of sequences decoded at once."""
    batches = [2**k for k in range(11)]
    shape = SHAPES["8B"]
    tones: Any = {16: "float", 8: "warn", 4: "quant"}

    def view(machine: str, context: int) -> dict[str, Any]:
        label, bandwidth, operations = MACHINES[machine]

        def at(bits: int, batch: int) -> float:
            return speed(shape, bits, batch, bandwidth, operations, context)

        return {
            "x": Axis(label="sequences at once", low=0.8, high=1300, log=True),
            "y": Axis(label="tokens a second, all sequences", low=3, high=1e5, log=True),
            "series": [
                Series(
                    name=STORED[str(bits)],
                    tone=tones[bits],
                    line=True,
                    points=tuple(Point(id=f"{bits}b{n}", x=n, y=at(bits, n)) for n in batches),
                )
                for bits in (16, 8, 4)
            ],
            "say": f"On {label}, one sequence: at most {significant(at(16, 1), 2)} tokens a second in BF16, "
            f"{significant(at(4, 1), 2)} in INT4.",
            "readouts": [
                {"label": "Memory", "value": f"{significant(bandwidth / 1e9)} GB/s"},
                {"label": "Arithmetic", "value": f"{significant(operations / 1e12)} T op/s"},
                {"label": "BF16, one sequence", "value": f"{significant(at(16, 1), 2)} tokens/s", "tone": "float"},
                {"label": "INT4, one sequence", "value": f"{significant(at(4, 1), 2)} tokens/s", "tone": "quant"},
                {"label": "INT4 over BF16 at 256", "value": f"{at(4, 256) / at(16, 256):.2f} times", "tone": "good"},
            ],
        }

    return explore(
        view,
        machine=Choice(label="Machine", options={"laptop": "Laptop", "server": "H100"}, start="laptop"),
        context=Slider(label="Context", unit="tokens", values=(128, 1024, 8192), start=128),
    )


def numbers() -> dict[str, Any]:
    data = FILE.read_bytes()
    entries, _ = read_header(FILE)
    demo, small, large = (SHAPES[key] for key in ("demo", "1B", "8B"))
    parameters = {key: sum(shape.parameters().values()) for key, shape in SHAPES.items()}
    assert parameters["demo"] == sum(entry.count for entry in entries)
    assert (parameters["1B"], parameters["8B"]) == (1_235_814_400, 8_030_261_248)
    scope: dict[str, Any] = {"data": data, "struct": struct, "json": json}
    exec(PROGRAM, scope)
    first = next(entry for entry in entries if entry.name == TENSOR)
    assert scope["at"] == first.offset and np.float32(scope["value"]) == lab.weight("layers.1.mlp.down_proj")[0, 0]
    whole, four = sum(demo.bytes(16).values()), demo.bytes(4)
    big4 = sum(large.bytes(4).values())
    cross = big4 / large.cache
    _, bandwidth, operations = MACHINES["server"]
    gain = {
        n: speed(large, 4, n, bandwidth, operations, 128) / speed(large, 16, n, bandwidth, operations, 128)
        for n in (1, 512)
    }
    _, slow, laptop = MACHINES["laptop"]
    assert 0.9 < demo.cache * 512 / sum(four.values()) < 1.1
    assert gain[1] > 2.5 and gain[512] < 1.1
    assert 20_000 < cross < 80_000 and 2.5 < whole / sum(four.values()) < 3.3
    program = run_code(
        PROGRAM,
        ["n", "entry", "begin", "end", "at", "low", "high", "pattern", "value"],
        {k: scope[k] for k in ("data", "struct", "json")},
    )
    return {
        "small": small.name,
        "large": large.name,
        "norms": demo.parameters()["norms"] / parameters["demo"],
        "file": len(data),
        "header": scope["n"],
        "tensors": len(entries),
        "at": scope["at"],
        "value": scope["value"],
        "row": first.row_size,
        "table": {key: s.parameters()["embedding"] / parameters[key] for key, s in SHAPES.items()},
        "bits4": 8 * (four["attention"] + four["MLP"]) / sum(demo.parameters()[r] for r in ("attention", "MLP")),
        "factor": whole / sum(four.values()),
        "table4": four["embedding"] / sum(four.values()),
        "demo4": sum(four.values()),
        "small4": sum(small.bytes(16).values()) / sum(small.bytes(4).values()),
        "large16": sum(large.bytes(16).values()),
        "large4": big4,
        "cache": {key: shape.cache for key, shape in SHAPES.items()},
        "full": demo.cache * 512,
        "cross": cross,
        "hundredth": cross / 100,
        "tenth": cross / 10,
        "logits": 4.0 * large.vocabulary * 8192,
        "residual": 2 * large.hidden,
        "read16": large.read(16),
        "read4": large.read(4),
        "head4": large.bytes(4)["head"] / large.read(4),
        "laptop_bandwidth": slow,
        "laptop16": speed(large, 16, 1, slow, laptop, 128),
        "laptop4": speed(large, 4, 1, slow, laptop, 128),
        "ridge": operations / bandwidth,
        "gain": gain,
        "shares": shares(),
        "reading": program,
        "weight": one_weight(scope["low"], scope["high"], scope["value"]),
        "caches": caches(),
        "roofline": roofline(),
    }
