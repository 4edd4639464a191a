"""From codes to bytes and back: packing, four containers, independent decoders, and what one wrong bit does."""

import zlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from gguf import GGMLQuantizationType, quants
from onnx import TensorProto, helper, numpy_helper

from bitwright.authoring import lab
from bitwright.authoring.figures import Choice, Dot, Figure, Slider, Steps, Tick, explore
from bitwright.authoring.filters import significant
from bitwright.authoring.trace import run_code
from bitwright.core import bits
from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor
from bitwright.files.containers.compressed_tensors.layout import Scheme, decode_by_library, unpack
from bitwright.files.containers.gguf import blocks
from bitwright.files.containers.nbits.packing import DOMAIN, decode_node
from bitwright.methods import mse

LAYER = "layers.1.self_attn.o_proj"
ROW = 1
GROUP = 32
HALF = 8
"""What is added to a signed code of four bits before it is stored."""
SOME = 8
"""Codes in one word of 32 bits."""
SUBS = 8
"""Sub-blocks of a Q4_K super-block, of GROUP weights each."""


def nibble(value: int) -> str:
    """The four bits of a code."""
    return f"{value & 15:04b}"


def field(index: int, stored: int) -> dict[str, str]:
    """Four bits that belong to one weight; neighbours differ in colour."""
    return {"label": f"w{index}", "bits": nibble(stored), "tone": "quant" if index % 2 else "good"}


def packing(codes: np.ndarray, scale: float, words: np.ndarray) -> Figure:
    """Eight codes on their way into one word and four bytes of the file."""
    stored = codes.astype(int)
    value = [int(c) - HALF for c in codes]
    raw = words.view(np.uint8)

    def view(step: int) -> dict[str, Any]:
        if step == 0:
            rows = [
                {
                    "id": f"w{i}",
                    "label": f"w{i}",
                    "fields": [{"label": "signed", "bits": nibble(v), "tone": "float"}],
                    "value": f"{v} × {scale:.4f} = {v * scale:.4f}".replace("-", "\u2212"),
                }
                for i, v in enumerate(value)
            ]
            say = "Eight signed codes of four bits, in two's complement."
        elif step == 1:
            rows = [
                {"id": f"w{i}", "label": f"w{i}", "fields": [field(i, s)], "value": f"{value[i]} + {HALF} = {s}"}
                for i, s in enumerate(stored)
            ]
            say = "Eight is added to each: stored codes run from 0 to 15."
        elif step == 2:
            rows = [
                {
                    "id": f"w{i}",
                    "label": f"byte {i // 2}",
                    "fields": [field(i + 1, stored[i + 1]), field(i, stored[i])],
                    "value": f"{stored[i]} + 16 × {stored[i + 1]} = {raw[i // 2]}",
                }
                for i in range(0, SOME, 2)
            ]
            say = "Two codes a byte: the first in the low half."
        elif step == 3:
            fields = [field(i, stored[i]) for i in reversed(range(SOME))]
            rows = [{"id": "w0", "label": "word", "fields": fields, "value": f"0x{int(words[0]):08x}"}]
            say = "Eight codes in one word of 32 bits, the first in the lowest bits."
        else:
            rows = [
                {
                    "id": f"w{2 * i}",
                    "label": f"file byte {i}",
                    "fields": [field(2 * i + 1, stored[2 * i + 1]), field(2 * i, stored[2 * i])],
                    "value": f"0x{byte:02x}",
                }
                for i, byte in enumerate(raw)
            ]
            say = "The file is little-endian: the lowest byte of the word comes first."
        return {"words": rows, "say": say}

    captions = (
        "Eight codes as arithmetic sees them: signed, four bits each.",
        "Eight is added, so that no stored code is negative. This is the same as turning over the top bit.",
        "Neighbours share a byte. The first sits in the low four bits, on the right.",
        "Four bytes make a word. Written as a number, its first weight is at the far right.",
        "In the file the lowest byte comes first: reading order of the weights again.",
    )
    return explore(view, step=Steps(captions=captions))


def program(word: int, scale: float) -> Figure:
    """The decoder as a program that ran."""
    source = f"""
word = 0x{word:08x}
scale = {scale!r}
for i in range({SOME}):
    stored = (word >> 4 * i) & 0xF
    weight = scale * (stored - {HALF})
    print(i, round(weight, 4))
"""
    return run_code(source, ("i", "stored", "weight"))


def gguf(codes: np.ndarray, scale: float) -> bytes:
    """A block of GGUF's Q4_0: a float16 scale, then byte i holds codes i (low half) and i + 16 (high half)."""
    return np.asarray(blocks.pack(QTensor(named("q4_0"), codes[None], np.array([[scale]], np.float32)))).tobytes()


def stored(q: QTensor) -> np.ndarray:
    """The blocks of a matrix in a type of GGUF, uint8 [rows, bytes]; gguf-py decodes them as we do."""
    raw = np.asarray(blocks.pack(q))
    assert np.array_equal(quants.dequantize(raw, GGMLQuantizationType[q.format.name.upper()]), q.decode())
    return raw


def bits_of(byte: int, *parts: tuple[int, str, str]) -> list[dict[str, str]]:
    """The bits of a byte, the highest first, in parts of (bits, label, tone)."""
    text, found = f"{byte:08b}", []
    for count, name, tone in parts:
        found.append({"label": name, "bits": text[:count], "tone": tone})
        text = text[count:]
    return found


def superblock(q: QTensor, raw: np.ndarray) -> Figure:
    """The bytes of one Q4_K super-block that decide the weights of one sub-block."""
    d, least = (float(x) for x in raw[:4].view(np.float16))
    halves = raw[:4].view("<u2")

    def small(j: int) -> tuple[int, int, list[dict[str, Any]]]:
        """A sub-block's six-bit scale and minimum, and the bytes that hold them."""

        def row(at: int, value: str, *parts: tuple[int, str, str]) -> dict[str, Any]:
            return {"id": f"s{at}", "label": f"byte {at}", "fields": bits_of(int(raw[at]), *parts), "value": value}

        if j < SUBS // 2:
            scale, minimum = int(raw[4 + j]) & 63, int(raw[8 + j]) & 63
            return scale, minimum, [
                row(4 + j, f"scale s = {scale}", (2, "other", "mute"), (6, "s", "quant")),
                row(8 + j, f"minimum m = {minimum}", (2, "other", "mute"), (6, "m", "good")),
            ]  # fmt: skip
        low, first, second = 8 + j, j, 4 + j
        scale = int(raw[low]) & 15 | int(raw[first]) >> 6 << 4
        minimum = int(raw[low]) >> 4 | int(raw[second]) >> 6 << 4
        return scale, minimum, [
            row(first, "upper bits of s", (2, "s", "quant"), (6, "other", "mute")),
            row(second, "upper bits of m", (2, "m", "good"), (6, "other", "mute")),
            row(low, f"s = {scale}, m = {minimum}", (4, "m", "good"), (4, "s", "quant")),
        ]  # fmt: skip

    def view(block: int) -> dict[str, Any]:
        j = block - 1
        scale, minimum, rows = small(j)
        step, shift = float(q.scale[ROW, j]), float(q.shift[ROW, j])
        assert step == np.float32(d) * scale and shift == -np.float32(least) * minimum
        words = [
            {"id": "d", "label": "bytes 0, 1", "value": f"d = {d:.3g}",
             "fields": [{"label": "float16", "bits": f"{halves[0]:016b}", "tone": "quant"}]},
            {"id": "dmin", "label": "bytes 2, 3", "value": f"dmin = {least:.3g}",
             "fields": [{"label": "float16", "bits": f"{halves[1]:016b}", "tone": "good"}]},
            *rows,
        ]  # fmt: skip
        begin, high = 16 + GROUP * (j // 2), j % 2
        for i in range(2):
            weight, code = GROUP * j + i, int(q.codes[ROW, GROUP * j + i])
            assert code == int(raw[begin + i]) >> 4 * high & 15
            parts = [(4, f"w{GROUP * (j ^ 1) + i}", "mute"), (4, f"w{weight}", "float")]
            value = f"{step:.4f} × {code} − {-shift:.4f} = {step * code + shift:.4f}".replace("-", "\u2212")
            words.append({"id": f"c{i}", "label": f"byte {begin + i}", "value": value,
                          "fields": bits_of(int(raw[begin + i]), *(parts[::-1] if high else parts))})  # fmt: skip
        return {
            "words": words,
            "say": f"Sub-block {block}: scale {scale} times {d:.3g} is a step of {step:.4f}; minimum {minimum} times "
            f"{least:.3g} is {-shift:.4f}, which is taken off.",
            "readouts": [
                {"label": "Step: d × s", "value": f"{step:.4f}", "tone": "quant"},
                {"label": "Taken off: dmin × m", "value": f"{-shift:.4f}", "tone": "good"},
                {"label": "Range", "value": f"{shift:.3f} to {shift + 15 * step:.3f}".replace("-", "\u2212")},
            ],
        }

    return explore(view, block=Slider(label="Sub-block", values=tuple(range(1, SUBS + 1)), start=1))


def rulers(w: np.ndarray, found: dict[str, QTensor]) -> Figure:
    """The levels of each sub-block in types of the same size, and where they put its weights."""
    row, back = w[ROW], {name: q.decode()[ROW] for name, q in found.items()}
    reach = 1.1 * float(np.abs(row).max())

    def view(block: int, type: str) -> dict[str, Any]:
        q, here = found[type], slice(GROUP * (block - 1), GROUP * block)
        scale = float(q.scale[ROW, block - 1])
        shift = 0.0 if q.shift is None else float(q.shift[ROW, block - 1])
        levels = scale * np.asarray(q.format.code.values) + shift
        error = Error.between(row[here], back[type][here])
        return {
            "low": -reach,
            "high": reach,
            "levels": [Tick(at=float(level), code=str(i) if i in (0, 15) else "") for i, level in enumerate(levels)],
            "dots": [
                Dot(id=f"w{i}", at=float(a), to=float(b))
                for i, (a, b) in enumerate(zip(row[here], back[type][here], strict=True))
            ],
            "x": "weight",
            "say": f"Sub-block {block} in {type.upper()}: sixteen levels {abs(scale):.4f} apart from "
            f"{levels.min():.3f} to {levels.max():.3f}, {error.sqnr:.1f} dB.".replace("-", "\u2212"),
            "readouts": [
                {"label": "Between levels", "value": f"{abs(scale):.4f}", "tone": "quant"},
                {"label": "SQNR of the sub-block", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            ],
        }

    options = {name: name.upper() for name in found}
    return explore(
        view,
        block=Slider(label="Sub-block", values=tuple(range(1, SUBS + 1)), start=7),
        type=Choice(label="Type", options=options, start="q4_0"),
    )


def containers(codes: np.ndarray, scale: float, packed: bytes, blob: bytes) -> Figure:
    """The first three bytes of codes of the same thirty-two weights in four containers."""
    signed = codes.astype(int) - HALF
    tensor = helper.make_tensor("w", TensorProto.INT4, [GROUP], signed.tolist())
    assert (numpy_helper.to_array(tensor).astype(int) == signed).all()
    int4 = bytes(tensor.int32_data) if tensor.int32_data else tensor.raw_data
    block = gguf(codes, scale)
    near, far = [(0, 1), (2, 3), (4, 5)], [(0, 16), (1, 17), (2, 18)]
    options = {
        "compressed": "compressed-tensors",
        "gguf": "GGUF Q4_0",
        "nbits": "ONNX MatMulNBits",
        "qdq": "ONNX int4 (QDQ)",
    }
    rows: dict[str, tuple[bytes, list[tuple[int, int]], str, str, float]] = {
        "compressed": (packed, near, "8", "bfloat16 or float16, a tensor of its own", 4 + 16 / GROUP),
        "gguf": (block[2:], far, "8", "float16, in front of each block", 8 * len(block) / GROUP),
        "nbits": (blob, near, "8, or stored zero points", "float32 or float16, a tensor of its own", 4 + 32 / GROUP),
        "qdq": (int4, near, "none: two's complement", "float32, a tensor of its own", 4 + 32 / GROUP),
    }

    def view(container: str) -> dict[str, Any]:
        data, pairs, offset, where, size = rows[container]
        words = []
        for i, (low, high) in enumerate(pairs):
            stored = [int(signed[k]) if container == "qdq" else int(codes[k]) for k in (low, high)]
            assert data[i] == (stored[0] & 15) | (stored[1] & 15) << 4
            fields = [
                {"label": f"w{k}", "bits": nibble(s), "tone": tone}
                for k, s, tone in ((high, stored[1], "quant"), (low, stored[0], "good"))
            ]
            words.append({"id": f"b{i}", "label": f"byte {i}", "fields": fields, "value": f"0x{data[i]:02x}"})
        last = ", ".join(f"w{low} with w{high}" for low, high in pairs)
        return {
            "words": words,
            "say": f"{options[container]}: bytes hold {last}; added before storing: {offset}.",
            "readouts": [
                {"label": "Added before storing", "value": offset},
                {"label": "Scale", "value": where, "tone": "quant"},
                {"label": "In groups of 32", "value": f"{size:.2f} bits per weight"},
            ],
        }

    return explore(view, container=Choice(label="Container", options=options, start="compressed"))


def runtime_answer(q: QTensor) -> tuple[np.ndarray, np.ndarray, bytes]:
    """The matrix as ONNX Runtime's MatMulNBits decodes it, as our own reader does, and the packed bytes."""
    rows, columns = q.shape
    blob = bits.pack(np.asarray(q.codes).reshape(-1, GROUP), 4).reshape(rows, columns // GROUP, -1)
    stored = {
        "B": numpy_helper.from_array(blob, "B"),
        "scales": numpy_helper.from_array(np.asarray(q.scale, np.float32), "scales"),
    }
    node = helper.make_node(
        "MatMulNBits", ["A", "B", "scales"], ["Y"], domain=DOMAIN, K=columns, N=rows, bits=4, block_size=GROUP
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, [columns, columns])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [columns, rows])],
        list(stored.values()),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # Against the identity the product is the matrix itself.
    answer = session.run(None, {"A": np.eye(columns, dtype=np.float32)})[0]
    return answer.T, decode_node(node, stored).T, blob.tobytes()


def flips(q: QTensor) -> tuple[dict[str, float], Figure]:
    """What one wrong bit does, in a code and in a scale: the weights it moves, and the KL of the model."""
    right, place = q.decode(), (ROW, 0)
    names = [f"code, bit {i}" for i in range(4)] + ["scale, lowest", "scale, mantissa top", "scale, sign"]
    names += ["scale, exponent low", "scale, exponent top"]
    found: dict[str, tuple[float, float]] = {}
    for name, bit in zip(names, (0, 1, 2, 3, 0, 9, 15, 10, 14), strict=True):
        codes, scale = q.codes.copy(), q.scale.copy()
        if name.startswith("code"):
            codes[place] ^= 1 << bit
        else:
            half = scale[place].astype(np.float16).view(np.uint16) ^ np.uint16(1 << bit)
            scale[place] = half.view(np.float16)
        wrong = QTensor(q.format, codes, scale).decode()
        assert np.isfinite(wrong).all() and zlib.crc32(wrong.tobytes()) != zlib.crc32(right.tobytes())
        change = float(np.abs(wrong - right).max() / np.abs(q.scale[place]))
        found[name] = (change, lab.quality({LAYER: wrong}, slice(0, 16)).kl)
    exact = lab.quality({LAYER: right}, slice(0, 16)).kl

    def view(measure: str) -> dict[str, Any]:
        kl = measure == "kl"
        rows = [(name, each[1] if kl else each[0]) for name, each in found.items()]
        rows = [("nothing wrong", exact), *rows] if kl else rows
        return {
            "bars": [
                {
                    "id": name,
                    "label": name,
                    "value": max(value, 1e-5),
                    "text": significant(value, 2),
                    "tone": "good" if name == "nothing wrong" else "quant" if name.startswith("code") else "error",
                }
                for name, value in rows
            ],
            "high": 3 * max(value for _, value in rows),
            "low": 1e-5 if kl else 1e-3,
            "log": True,
            "x": "KL, nats per token, only this matrix quantized" if kl else "largest change of a weight, in steps",
            "say": f"One flipped bit: from {significant(min(v for _, v in rows), 2)} to "
            f"{significant(max(v for _, v in rows), 2)} {'nats' if kl else 'steps'}.",
        }

    assert all(each[1] < 1.2 * exact for name, each in found.items() if name.startswith("code"))
    assert found["scale, sign"][1] > 1.5 * exact
    told = {
        "exact": exact,
        "code_worst": max(each[1] for name, each in found.items() if name.startswith("code")),
        "sign": found["scale, sign"][1],
        "scale_worst": max(each[1] for each in found.values()),
        "scale_steps": max(each[0] for each in found.values()),
    }
    options = {"change": "Largest change of a weight", "kl": "KL of the model"}
    return told, explore(view, measure=Choice(label="Damage", options=options, start="change"))


def road() -> Figure:
    """The stations of a certificate."""
    stages = [
        ("write", "Write", "partial name", "Tensors go to a folder called OUT.partial; each checksum is noted."),
        ("bytes", "Bytes", "checksum", "Every tensor is read back from disk: its checksum must be the noted one."),
        (
            "decode",
            "Decode",
            "two decoders",
            "The container's own library and ours decode each matrix: equal to the bit.",
        ),
        ("error", "Error", "as measured", "The error against the source must be that measured while quantizing."),
        ("copies", "Copies", "unchanged", "All other tensors must equal the source, byte by byte."),
        ("text", "Text", "KL, agreement", "Held-out text runs through the float model and through the decoded file."),
        ("load", "Load", "as a user", "transformers loads the folder, where memory allows, and must answer as we do."),
        ("name", "Name", "certificate", "Hashes and numbers go into certificate.json. Only now comes the final name."),
    ]

    def view(step: int) -> dict[str, Any]:
        return {
            "stages": [
                {
                    "id": key,
                    "label": label,
                    "detail": detail,
                    "state": "done" if i < step else "now" if i == step else "todo",
                }
                for i, (key, label, detail, _) in enumerate(stages)
            ],
            "text": stages[step][3],
            "tone": "good" if step == len(stages) - 1 else "ink",
            "say": f"Station {step + 1} of {len(stages)}: {stages[step][3]}",
        }

    return explore(view, step=Steps(captions=tuple(stage[3] for stage in stages), label="Station"))


def numbers() -> dict[str, Any]:
    w = lab.weight(LAYER)
    format = named("int4", group=GROUP)
    q = mse.quantize(w, format)
    codes, scale = q.codes[ROW, :GROUP], float(q.scale[ROW, 0])
    as_torch = QTensor(format, torch.from_numpy(q.codes), torch.from_numpy(q.scale))
    scheme = Scheme(format)
    parts = {part.name.split(".")[-1]: part.tensor for part in scheme.pack("m", as_torch, w.shape[0])}
    own = unpack(parts, scheme).decode().numpy()
    theirs = decode_by_library(parts, scheme).float().numpy()
    answer, reread, blob = runtime_answer(q)
    # The library answers in the scale's own float16: the last bits of a product are rounded there.
    assert np.array_equal(own, q.decode()) and np.array_equal(own.astype(np.float16).astype(np.float32), theirs)
    assert np.array_equal(reread, q.decode()) and np.array_equal(answer, q.decode())
    packed = parts["weight_packed"].numpy()
    bytes_ = sum(tensor.numpy().nbytes for tensor in parts.values())
    first = packed.view(np.uint32)[ROW, : GROUP // SOME]
    begin = ROW * w.shape[1] // 2
    damage, broken = flips(q)
    halves = q.codes.reshape(-1, 2)[:, ::-1].reshape(q.shape)
    swapped = lab.quality({LAYER: QTensor(format, halves, q.scale).decode()}, slice(0, 16)).kl
    assert swapped > 50 * damage["exact"]
    types = {name: mse.quantize(w, named(name)) for name in ("q4_0", "q4_k")}
    raw = {name: stored(found) for name, found in types.items()}
    sqnr = {name: Error.between(w, found.decode()).sqnr for name, found in types.items()}
    assert raw["q4_0"].shape == raw["q4_k"].shape and sqnr["q4_k"] > sqnr["q4_0"]
    return {
        "rows": w.shape[0],
        "columns": w.shape[1],
        "float_bytes": w.size * 2,
        "stored_bytes": bytes_,
        "stored_bits": 8 * bytes_ / w.size,
        "words": packed.shape[1],
        "same": float((answer == q.decode()).mean()),
        "block": len(gguf(codes, scale)),
        "superblock_bytes": raw["q4_k"].shape[1],
        "superblock_weights": SUBS * GROUP,
        "gguf_bits": 8 * raw["q4_k"].size / w.size,
        "sqnr": sqnr,
        "straddling": sum(i * 3 // 8 != (i * 3 + 2) // 8 for i in range(SOME)),
        "swapped": swapped,
        **damage,
        "packing": packing(codes[:SOME], scale, first[:1].copy()),
        "program": program(int(first[0]), scale),
        "containers": containers(codes, scale, first.tobytes(), blob[begin : begin + GROUP // 2]),
        "superblock": superblock(types["q4_k"], raw["q4_k"][ROW]),
        "rulers": rulers(w, types),
        "flips": broken,
        "road": road(),
    }
