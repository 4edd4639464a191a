"""The recipe: the only configuration. It is read from and written to TOML; CLI options are shorthands for its keys."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bitwright import methods
from bitwright.errors import RecipeError, nearest
from bitwright.files import hub
from bitwright.files.plain import read_text, why
from bitwright.methods import Options

Block = Literal["tensor", "channel"] | Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _listed(value: Any) -> Any:
    """A single source as a list of one."""
    return [value] if isinstance(value, str) else value


def _differing(sources: list[str]) -> list[str]:
    if twice := next((name for i, name in enumerate(sources) if name in sources[:i]), None):
        raise PydanticCustomError("twice", "{name} is given twice", {"name": repr(twice)})
    return sources


def _alone(sources: list[str] | None) -> list[str] | str | None:
    """A list of one as it may be written."""
    return sources[0] if sources is not None and len(sources) == 1 else sources


Sources = Annotated[
    list[str], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_differing), PlainSerializer(_alone)
]
"""One source or several."""


def _single(value: Any) -> Any:
    """A list of one source as that source; of several, an error."""
    if not isinstance(value, list):
        return value
    if len(value) == 1:
        return value[0]
    fix = "Give one source; several are mixed for language models only"
    raise PydanticCustomError("unknown", "{count} sources of samples", {"count": len(value), "fix": fix})


SHARE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What is meant as a share."""
WRITTEN = "self"
"""The source that is no text yet: the model writes it."""
BROUGHT = "stdlib"
"""The source that every Python brings along."""


class Share(NamedTuple):
    """A source of calibration text, and how much of it goes into the mixture, in proportion to the others."""

    source: str
    share: float

    @classmethod
    def read(cls, text: str) -> Share:
        """`SOURCE` or `SOURCE:SHARE`; a file or folder that exists under the whole text is meant by it.

        RecipeError where what follows the last colon is no positive number, though all before it is a source.
        """
        name, colon, number = text.rpartition(":")
        if not colon or text == f"{hub.PREFIX}{number}" or _there(text):
            return cls(text, 1.0)
        share = float(number) if SHARE.fullmatch(number) else None
        if share is None and name and (name.startswith(hub.PREFIX) or not _there(name)):
            return cls(text, 1.0)  # a split of the hub's, or a name with a colon
        fix = "Write SOURCE:SHARE with a positive number after the last colon, such as docs.jsonl:3"
        if share is None or not 0 < share < math.inf:
            raise RecipeError(f"{number!r} is not a share", where=text, fix=fix, key="calibration.source")
        if not name:
            raise RecipeError("a share without a source", where=text, fix=fix, key="calibration.source")
        return cls(name, share)


def _there(source: str) -> bool:
    """Whether a source is a word, or the path of something that exists."""
    return source in (WRITTEN, BROUGHT) or os.path.exists(os.path.expanduser(source))


class Table(BaseModel):
    """A table of settings: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Layer(Table):
    """How a set of matrices is stored, and which method quantizes them."""

    format: str = "int4"
    """A format name (int4, int8, fp8, nf4, codebook3, ...) or "float": left as it is."""
    group: Block | None = None
    """Weights of a row that share one scale; or "channel" or "tensor". None: the format's default (128), or where
    that does not divide a row the largest smaller group that the container's runtimes read, else one scale per row."""
    symmetric: bool = True
    activations: Literal["none", "int8", "fp8"] = "none"
    """Run-time quantization of the layer's input, one dynamic scale per token."""
    method: str = "descent"
    """A method by its name (rtn, mse, gptq, descent, ...)."""
    options: SerializeAsAny[Options] = Field(default_factory=Options, validate_default=True)
    """Options of the method; each method has its own."""

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return _method(name)

    @field_validator("options", mode="wrap")
    @classmethod
    def _of_method(cls, value: Any, _: Any, info: ValidationInfo) -> Options:
        """The options, checked against the method's own table."""
        if "method" not in info.data:
            return Options()  # the error is about the method
        if isinstance(value, Options):
            value = value.model_dump()
        return _options(info.data["method"], value)

    def overlaid(self, given: dict[str, Any]) -> Layer:
        """This layer with the settings of `given` instead of its own; options that another method lacks are dropped."""
        values = self.model_dump()
        known = methods.registry.get(given.get("method", self.method)).options.model_fields
        kept = {key: value for key, value in values["options"].items() if key in known}
        return Layer.model_validate(values | given | {"options": kept | given.get("options", {})})


class Rule(Table):
    """Overrides for the matrices whose name matches `match` (a glob over tensor names); later rules win."""

    match: str
    format: str | None = None
    group: Block | None = None
    symmetric: bool | None = None
    activations: Literal["none", "int8", "fp8"] | None = None
    method: str | None = None
    options: dict[str, JsonValue] | None = None

    @field_validator("method")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return None if name is None else _method(name)

    @property
    def given(self) -> dict[str, Any]:
        """What it overrides."""
        return self.model_dump(exclude={"match"}, exclude_none=True, exclude_unset=True)


def _method(name: str) -> str:
    """`name`, checked to be that of a method."""
    if name not in methods.registry.names():
        raise PydanticCustomError(
            "unknown", "no method is called '{name}'", {"name": name, "fix": nearest(name, methods.registry.names())}
        )
    return name


def _options(method: str, value: Any) -> Options:
    """Options of a method, checked against its own table."""
    table = methods.registry.get(method).options
    try:
        return table.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        context = {"method": method, "error": first, "known": list(table.model_fields)}
        raise PydanticCustomError("options", "options of {method}", context) from error


class Calibration(Table):
    """The text used for calibration and for the verdict."""

    source: Sources = [WRITTEN]
    """A text or JSONL file, folder, `hub:NAME@REVISION`, `stdlib` (Python's own), or `self` (the model writes it); or
    several, mixed evenly or by the shares that they end in: `["docs.jsonl:3", "other.txt:1"]`."""
    windows: int = Field(128, ge=1)
    """Number of windows, of all sources together."""
    length: int = Field(256, ge=8)
    """Tokens in a window."""
    heldout: Sources | None = None
    """Text for the verdict, one source or several: the first is what the headline judges by. By default a part of each
    `source` that is not used for calibration."""
    heldout_windows: int = Field(8, ge=2)
    seed: int = 0
    min_expert_tokens: int = Field(64, ge=0)
    """Experts that saw fewer tokens than this fall back to a data-free method; they are named."""

    @property
    def own(self) -> bool:
        """Whether the model writes the text itself."""
        return [Share.read(text).source for text in self.source] == [WRITTEN]


class Picture(Table):
    """How an image file becomes a network's input: (pixel * scale - mean) / std for each channel."""

    size: tuple[Side, Side] | None = None
    """[height, width]; None: the size the network states, or else that of the first image."""
    fit: Literal["none", "resize", "crop"] = "none"
    """Images of another size: an error that names them; or stretched; or short side resized and centre cropped."""
    short: Side | None = None
    """Length of the short side before a centre crop; None: the smallest that covers `size`."""
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mode: Literal["RGB", "BGR", "L"] | None = None
    """Order of the channels; None: RGB for three input channels, L (grey) for one."""
    convert: bool = False
    """Convert images of another mode (grey, alpha over white, CMYK) and record how many; otherwise an error."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """Order of the axes; None: what the network's input shape says."""
    scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Factor for the pixels; None: 1/255, or 1 where the network takes integers."""
    mean: tuple[Number, ...] = ()
    """Mean: one number per channel, or one for all; empty: 0."""
    std: tuple[Positive, ...] = ()
    """Standard deviation: one number per channel, or one for all; empty: 1."""


class Sound(Table):
    """How a PCM WAV file becomes a network's input."""

    rate: int | None = Field(None, ge=1)
    """Sampling rate (Hz) the network was trained on; None: that of the first file, which all others must share."""
    resample: bool = False
    """Convert files of another rate and record how many; otherwise they are an error."""
    length: int | None = Field(None, ge=1)
    """Samples (at `rate`) to which each clip is cut or zero-padded; None: its own length, in batches of one."""
    frame: int | None = Field(None, ge=1)
    """Samples that one call of a streaming network takes: clips are cut into such frames, one call after the other, and
    the state begins anew with each clip. None: a clip is one call."""
    step: int | None = Field(None, ge=1)
    """Samples from the beginning of one frame to that of the next; None: `frame`. Fewer let frames overlap."""
    features: Literal["raw", "logmel"] = "raw"
    """What the network reads: the waveform in [-1, 1), or log(max(mel spectrogram, floor))."""
    n_fft: int = Field(400, ge=2)
    """Samples per (Hann) window."""
    hop: int = Field(160, ge=1)
    """Samples from one window to the next."""
    mels: int = Field(80, ge=1)
    scale: Literal["htk", "slaney"] = "htk"
    """The mel scale, with triangles of height 1 (htk) or of equal area (slaney), as in torchaudio and librosa."""
    centre: bool = True
    """Pad half a window at both ends by reflection, so that frame t is centred on sample t * hop."""
    floor: float = Field(1e-6, gt=0, allow_inf_nan=False)
    normalize: bool = False
    """Normalize each clip's waveform or features to mean 0 and standard deviation 1."""


class Detection(Table):
    """How boxes are read from a detector's outputs. Without `boxes` they are final: the network suppresses itself."""

    boxes: Literal["xyxy", "xywh", "cxcywh"] | None = None
    """A raw head's four numbers of a box: two corners, a corner and a size, or a centre and a size."""
    layout: Literal["rows", "columns"] | None = None
    """A box per row, [images, boxes, values] (as YOLOv5), or per column, [images, values, boxes] (as YOLOv8); None:
    what the number of classes says."""
    objectness: bool = False
    """A score of its own, before those of the classes, says whether there is an object (YOLOv5, YOLOX)."""
    scores: Literal["probability", "logit", "softmax"] = "probability"
    """Scores are used as they are, or pass a sigmoid each, or a softmax over all."""
    background: Literal["none", "first", "last"] = "none"
    """One score more than there are classes, for no object."""
    relative: bool = False
    """Boxes are shares of the input's width and height instead of pixels."""
    threshold: float = Field(0.001, ge=0, lt=1)
    """Boxes with a lower score are none."""
    nms: float = Field(0.5, ge=0, le=1)
    """Of two boxes of one class with a larger intersection over union, the better one is kept; 1 keeps both."""
    pictures: int = Field(0, ge=0, le=12)
    """Held-out images kept in the certificate, for the report to show with their boxes."""

    @model_validator(mode="after")
    def _raw(self) -> Detection:
        """Check that a raw head's settings come with what its boxes are."""
        raw = [key for key in type(self).model_fields if key not in ("boxes", "pictures")]
        given = next((key for key in raw if getattr(self, key) != type(self).model_fields[key].default), None)
        if self.boxes is None and given:
            fix = 'Set boxes = "xyxy", "xywh" or "cxcywh", or leave it out'
            raise PydanticCustomError("unknown", "{key} is for a raw head", {"key": given, "fix": fix})
        return self


class Match(Table):
    """How embeddings are judged: by pairs of samples that are of one identity or of two."""

    output: str | None = None
    """The output that is the embedding; None: the only one with a row of numbers per sample."""
    pairs: str | None = None
    """A text file of pairs: two names of samples and 1 or 0 in each line; None: drawn from the labels by `seed`."""


class Data(Table):
    """The samples that calibrate a network's activations, and those for its verdict."""

    source: Annotated[str | None, BeforeValidator(_single)] = None
    """A folder of images or WAV files (one subfolder per class), a COCO folder or .json, .npy, .npz or .jsonl."""
    heldout: Sources | None = None
    """Samples for the verdict, one source or several: the first is what the headline judges by. By default those of
    `source` that are not used for calibration."""
    task: Literal["classify", "words", "detect", "match", "none"] | None = None
    """What the verdict measures; None: what the labels imply, which is never "match" (embeddings; a label is then an
    identity)."""
    samples: int = Field(256, ge=1)
    """Most samples used for calibration."""
    heldout_samples: int | None = Field(None, ge=1)
    """Most samples used for the verdict; None: all."""
    batch: int = Field(32, ge=1)
    """Samples run at once; a network with a fixed batch size uses that."""
    order: Literal["spread", "given"] = "spread"
    """Choose samples from each class in turn, shuffled by `seed`; or take the first ones."""
    seed: int = 0
    classes: tuple[str, ...] = ()
    """Classes in the order of the network's outputs; by default the sorted folder names. For CTC: the alphabet."""
    blank: int = Field(0, ge=0)
    """Index of CTC's blank in `classes`."""
    image: Picture = Picture()
    audio: Sound = Sound()
    detection: Detection = Detection()
    match: Match = Match()


class Network(Table):
    """How the activations and biases of an ONNX network become integers, and which rewrites are done first."""

    activations: Literal["int8", "none"] = "int8"
    """Static quantization of the tensors between layers; "none" for weights only."""
    target: Literal["x86", "arm", "gpu"] = "x86"
    """uint8 activations (x86), int8 (arm), or int8 without zero points (gpu)."""
    observer: Literal["minmax", "average", "percentile", "mse", "entropy"] = "mse"
    """How an activation's range is chosen from calibration."""
    percentile: float = Field(99.99, gt=50, le=100)
    """For the observer "percentile": percent of the values inside the range."""
    storage: Literal["int8", "int4"] = "int8"
    """Weights of at most 4 bits: a byte each (ONNX Runtime: integer kernels) or packed (half size, float kernels).
    Under a budget they are packed unless this is set."""
    equalize: bool = True
    """Cross-layer equalization across ReLU, sums and pooling, where less noise is predicted."""
    absorb: bool = False
    """Bias absorption after equalization: move the part that ReLU never cuts off into the next layer's bias."""
    smooth: float = Field(0.0, ge=0, le=1)
    """SmoothQuant's exponent for products that follow a normalization: 0 is off, 0.5 is the paper's value."""
    bias: Literal["none", "empirical", "analytic"] = "empirical"
    """Bias correction: from calibration data, or from batch norm statistics alone (data-free)."""
    entrance: Literal["float", "int8"] = "float"
    """Layers that read the network's inputs and do little of its work: rounding an input harms all later layers."""
    bind: dict[str, Side | Literal["any"]] = {}
    """Sizes of the input dimensions that the file leaves open, by name; "any" keeps one open."""
    batch: dict[str, Annotated[int, Field(ge=0)] | Literal["none"]] = {}
    """The axis of an input that counts samples, where it is not found; "none": one value for all samples."""
    constant: dict[str, Number] = {}
    """Inputs that always have one value: samples need not hold it, and what depends on it alone is decided for good."""
    state: dict[str, str] = {}
    """The output that a state input takes its next value from, where it is not found; "none": it is no state."""


class Budget(Table):
    """What the output may take or lose: one of `size`, `bpw` and `kl`. Formats are chosen by what they cost on data."""

    size: int | None = Field(None, gt=0)
    """Bytes of the output's weight files, at most."""
    bpw: Positive | None = None
    """Bits of the output's weight files per parameter of the whole model, at most."""
    kl: Positive | None = None
    """Nats per token, or per sample of a network that returns class scores, that may be lost, as predicted before
    anything is solved: the smallest output that keeps to it."""
    formats: tuple[str, ...] | None = None
    """The formats to choose from; None: the container's own."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        given = [key for key in ("size", "bpw", "kl") if getattr(self, key) is not None]
        if len(given) != 1:
            fix = "Give exactly one of size, bpw and kl (--size, --bpw, --max-kl)"
            raise PydanticCustomError("unknown", "{count} limits", {"count": len(given), "fix": fix})
        return self


class Recipe(Table):
    """Everything that decides the bytes of the output, besides the model itself.

    >>> Recipe.loads('[layer]\\nformat = "int8"\\ngroup = "channel"').layer.format
    'int8'
    """

    layer: Layer = Layer()
    rules: tuple[Rule, ...] = ()
    calibration: Calibration = Calibration()
    data: Data = Data()
    network: Network = Network()
    output: str | None = None
    """The container to write; None: what fits the model. "float" writes the decoded weights in the model's own dtype:
    any format can be studied, but no file gets smaller."""
    effort: Literal["fast", "default", "best"] = "default"
    """Quality for time: "fast" rounds each matrix for the float model's inputs; "default" also makes up for the errors
    before it, and weighs outputs by what errors cost there; "best" learns that from more text."""
    max_drop: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Quality that may be lost: points of accuracy, or percent of perplexity. The most sensitive layers stay float."""
    indivisible: Literal["error", "channel", "float"] = "error"
    """A matrix whose row length is no multiple of the group asked for: fail, one scale per row, or leave it float."""
    embedding: str = "float"
    """How the token embedding and the output head are stored, where no rule names them: a format (int8, int4) or
    "float". Where both are one tensor it is stored once."""
    kv_cache: Literal["float", "fp8", "int8", "int4"] = "float"
    """How keys and values of language models are held from token to token: rounded by scales that are chosen on
    calibration text and stored beside the weights, or "float", as they are. vLLM packs fp8; transformers rounds all."""
    type: str | None = None
    """The mix of a GGUF file, as llama.cpp calls it: q4_k_m, q3_k_m, q2_k, ... It gives every tensor its format, the
    embedding among them; rules change single ones."""
    imatrix: str | None = None
    """An imatrix of llama.cpp (`llama-imatrix`, `bitwright imatrix`), which weighs columns instead of calibration text:
    for methods that can do with the mean square of each."""
    budget: Budget | None = None
    """What the output may take or lose; each matrix then gets its format by what that costs."""
    tokenizer_pre: str | None = None
    """How a GGUF file's runtimes cut text before merging tokens, as llama.cpp calls it; None: what the tokenizer's own
    definition says."""
    untie: bool = False
    """Let a rule quantize an output head whose tensor is also the embedding; the head is then stored separately."""
    max_float_percent: float = Field(10.0, ge=0, le=100)
    """Fail if more than this share of the decoder blocks' weights would stay float without a rule for it."""
    copy_code: bool = False
    """Copy code that lies beside the model (`*.py`) into the output: whoever trusts it there runs it."""
    max_shard_bytes: int | None = Field(None, ge=1_000_000)
    """Bytes of a weight file, at most: a larger output is written as shards, and a larger tensor has its own. None:
    5 GB in a folder; GGUF is one file, whatever its size."""

    @model_validator(mode="after")
    def _rules(self) -> Recipe:
        """Check that a rule's options belong to the method it names, or to one that its matrices may have."""
        before = dict.fromkeys([self.layer.method])
        for i, rule in enumerate(self.rules):
            before |= dict.fromkeys([rule.method] if rule.method else [])
            if rule.options:
                _any_of([rule.method] if rule.method else [*before], rule.options, i)
        return self

    @classmethod
    def loads(cls, text: str, where: str = "recipe") -> Recipe:
        """A recipe from TOML text; RecipeError names the key, and the nearest known one."""
        return cls.read(_parsed(text, where), where)

    @classmethod
    def read(cls, raw: dict[str, Any], where: str) -> Recipe:
        """A recipe from plain tables; RecipeError names `where` and the key."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise explain(error, where, cls) from error

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """A recipe from a TOML file."""
        return cls.read(tables(path), str(path))

    def dumps(self) -> str:
        """The recipe as TOML, every value spelled out."""
        return "\n".join(_toml(self.model_dump(mode="json", exclude_none=True), "")).strip() + "\n"

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON form."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def layer_for(self, *names: str) -> tuple[Layer, bool]:
        """The layer settings of what is called so, after all rules that mean any of its names; and whether one did."""
        layer, named = self.layer, False
        for rule in self.rules:
            if any(matches(rule.match, name) for name in names):
                layer, named = layer.overlaid(rule.given), True
        return layer, named


def tables(path: Path) -> dict[str, Any]:
    """What stands in a TOML file, as plain tables; RecipeError where it cannot be read."""
    try:
        text = read_text(path).removeprefix("\ufeff")  # some editors write this mark
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot be read ({why(error)})", where=str(path), fix="Give a TOML recipe") from error
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> dict[str, Any]:
    """TOML as plain tables."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not valid TOML ({error})", where=where, fix="Correct the line named") from error
    except RecursionError as error:
        raise RecipeError("nested too deep", where=where, fix="Write plain tables") from error


def _any_of(names: list[str], options: dict[str, Any], number: int) -> None:
    """Raise the error in a rule's options if none of the methods `names` takes them."""
    wrong: PydanticCustomError | None = None
    for name in names:
        try:
            _options(name, options)
        except PydanticCustomError as error:
            wrong = wrong or error
        else:
            return
    assert wrong is not None
    raise PydanticCustomError("options", "options of a rule", {**(wrong.context or {}), "rule": number})


def matches(pattern: str, name: str) -> bool:
    """Whether a rule's pattern matches a tensor, with or without its `.weight`."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.removesuffix(".weight"), pattern)


def explain(error: ValidationError, where: str, whole: type[Table]) -> RecipeError:
    """The first problem that pydantic found in `whole`, in one line."""
    first: Any = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    known: list[str] | None = None
    if first["type"] == "options":  # found by the method's own table
        context = first["ctx"]
        path += ["rules", str(context["rule"]), "options"] if "rule" in context else []
        first, known = context["error"], context["known"]
        path += [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "unknown":
        return RecipeError(first["msg"], where=f"{where}: {key}" if key else where, fix=first["ctx"]["fix"], key=key)
    if first["type"] == "extra_forbidden":
        if known is None:
            owner = next((TABLES[part] for part in reversed(path[:-1]) if part in TABLES), whole)
            known = list(owner.model_fields)
        fix = MOVED.get(key) or (nearest(path[-1], known) if known else "Leave it out: the method has no options")
        return RecipeError(f"unknown option {path[-1]!r}", where=f"{where}: {key}", fix=fix, key=key)
    fix = "Correct it, or leave it out for the default"
    if path[-1].startswith("constrained-"):  # one side of a union: a number or a word
        path.pop()
    if first["type"] == "literal_error":
        fix = nearest(str(first["input"]), re.findall("'([^']+)'", first["ctx"]["expected"]))
        if path[-1].startswith("literal["):  # one side of a union: a word or a number
            path.pop()
            fix += f"{'' if fix.endswith('?') else '.'} Or give a whole number, at least 1"
    if first["type"] == "missing":
        return RecipeError("field required", where=f"{where}: {'.'.join(path)}", fix="Write it", key=".".join(path))
    key = ".".join(path)
    what = first["msg"].removeprefix("Value error, ")
    return RecipeError(
        f"{what[:1].lower()}{what[1:]} (got {first['input']!r})",
        where=f"{where}: {key}",
        fix=fix,
        key=key,
    )


TABLES: dict[str, Any] = {
    "layer": Layer,
    "rules": Rule,
    "calibration": Calibration,
    "data": Data,
    "network": Network,
    "image": Picture,
    "audio": Sound,
    "detection": Detection,
    "match": Match,
}
"""Tables of a recipe, by the last part of their key."""
MOVED = {
    "network.max_drop": "Write it at the top of the recipe: max_drop = ...",
    "network.training": 'Write epochs, rate and penalty in [layer.options], beside method = "lsq"',
}
"""Keys of earlier releases, and what replaces them."""


def _toml(table: dict[str, Any], prefix: str) -> list[str]:
    """Lines of TOML for a table of strings, numbers, booleans, tables, and lists of tables or of plain values."""
    lines, later = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            later += ["", f"[{prefix}{key}]", *_toml(value, f"{prefix}{key}.")]
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            for item in value:  # an empty list is the default of every key that holds one
                later += ["", f"[[{prefix}{key}]]", *_toml(item, f"{prefix}{key}.")]
        else:
            # JSON's escapes are TOML's too, but for pairs of surrogates; TOML wants DEL escaped, JSON does not.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return lines + later
