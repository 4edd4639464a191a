"""llama.cpp's mixes: which type each tensor gets in a file called Q4_K_M, Q2_K and so on, as data.

Source: `llama_tensor_get_type_impl`, `tensor_type_fallback` in llama.cpp's `src/llama-quant.cpp`. A mix is a type for
most tensors, and rules for those that need more bits: the first that holds for a tensor's role and place counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from bitwright.errors import RecipeError, nearest
from bitwright.files.containers.gguf.families import Config, family_of

T = GGMLQuantizationType
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
VALUES, KEYS, PROJECTION, DOWN = "attn_v", "attn_k", "attn_output", "ffn_down"
ROLES = {"attn_qkv.weight": VALUES, "attn_v.weight": VALUES, "attn_k.weight": KEYS, "attn_output.weight": PROJECTION,
         "ffn_down": DOWN}  # fmt: skip
"""What a name holds -> the role of the tensor; all others have none. Fused matrices count as values."""


@dataclass(frozen=True)
class Build:
    """What mixes ask of a model."""

    arch: str
    blocks: int
    heads: int
    kv_heads: int
    experts: int = 0

    @classmethod
    def of(cls, config: Config) -> Build:
        """The build of a transformers config; ModelError for an unknown architecture."""
        heads = int(config["num_attention_heads"])
        experts = config.get("num_local_experts") or config.get("num_experts") or 0
        kv_heads = int(config.get("num_key_value_heads") or heads)
        return cls(family_of(config).name, int(config["num_hidden_layers"]), heads, kv_heads, int(experts))

    @property
    def grouped(self) -> bool:
        """Whether at least four heads share their keys and values: these matrices are small then."""
        return self.heads >= 4 * self.kv_heads

    @property
    def eight(self) -> bool:
        """Whether it has eight experts: its attention is small beside them."""
        return self.experts == 8

    @property
    def seventy(self) -> bool:
        """Whether llama.cpp takes it for a model of 70 billion weights."""
        llama = self.arch == "llama" and self.heads != self.kv_heads
        return self.blocks == 80 and (llama or self.arch == "qwen2")


@dataclass(frozen=True)
class Place:
    """Where a tensor is: the `index`th of `count` of its role."""

    index: int
    count: int
    build: Build
    imatrix: bool


When = Callable[[Place], bool]
Rules = tuple[tuple[GGMLQuantizationType, When], ...]


def _always(place: Place) -> bool:
    return True


def _first(number: int) -> When:
    return lambda place: place.index < number


def _part(share: int) -> When:
    """In the first of so many equal parts of the blocks."""
    return lambda place: place.index < place.count // share


def _more(place: Place) -> bool:
    """In the first and last eighth, and every third between."""
    i, n = place.index, place.count
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _grouped(place: Place) -> bool:
    return place.build.grouped


@dataclass(frozen=True)
class Mix:
    """A kind of file: its number, the type of most tensors, and rules by role."""

    file_type: LlamaFileType
    base: GGMLQuantizationType
    rules: Mapping[str, Rules] = field(default_factory=dict)
    embedding: GGMLQuantizationType | None = None
    """The type of an embedding that is not the output too, where it is not that of most tensors."""
    raised: bool = False
    """Whether the projection behind attention gets Q5_K in a model of eight experts."""
    experts_only: bool = False
    """Whether only experts get the type, and all others Q8_0."""
    needs_imatrix: bool = False
    """Whether llama.cpp makes it only with the statistics of an imatrix."""


F = LlamaFileType
EARLY: Rules = ((T.Q5_K, _part(8)),)
UNGUIDED: Rules = ((T.Q5_K, lambda place: place.index < place.count // 8 and not place.imatrix),)
GUIDED: When = lambda place: place.index < place.count // 8 and place.imatrix  # noqa: E731
MIXES: dict[str, Mix] = {
    "q8_0": Mix(F.MOSTLY_Q8_0, T.Q8_0),
    "q4_0": Mix(F.MOSTLY_Q4_0, T.Q4_0, {DOWN: ((T.Q4_1, GUIDED),)}),
    "q4_1": Mix(F.MOSTLY_Q4_1, T.Q4_1),
    "q5_0": Mix(F.MOSTLY_Q5_0, T.Q5_0, {DOWN: ((T.Q5_1, GUIDED),)}),
    "q5_1": Mix(F.MOSTLY_Q5_1, T.Q5_1),
    "q2_k": Mix(
        F.MOSTLY_Q2_K,
        T.Q2_K,
        {
            VALUES: ((T.Q4_K, _grouped), (T.Q3_K, _always)),
            DOWN: ((T.Q3_K, _always),),
            PROJECTION: ((T.Q3_K, _always),),
        },
        raised=True,
    ),
    "q2_k_s": Mix(
        F.MOSTLY_Q2_K_S, T.Q2_K, {VALUES: ((T.Q4_K, _grouped),), DOWN: ((T.Q4_K, _part(8)),)}, needs_imatrix=True
    ),
    "q3_k_s": Mix(F.MOSTLY_Q3_K_S, T.Q3_K, raised=True),
    "q3_k_m": Mix(
        F.MOSTLY_Q3_K_M,
        T.Q3_K,
        {
            VALUES: ((T.Q5_K, _first(2)), (T.Q4_K, _always)),
            DOWN: ((T.Q5_K, _part(16)), (T.Q4_K, _always)),
            PROJECTION: ((T.Q4_K, _always),),
        },
        raised=True,
    ),
    "q3_k_l": Mix(F.MOSTLY_Q3_K_L, T.Q3_K, dict.fromkeys((VALUES, DOWN, PROJECTION), ((T.Q5_K, _always),))),
    "q4_k_s": Mix(F.MOSTLY_Q4_K_S, T.Q4_K, {VALUES: ((T.Q5_K, _first(4)),), DOWN: EARLY}, raised=True),
    "q4_k_m": Mix(F.MOSTLY_Q4_K_M, T.Q4_K, {VALUES: ((T.Q6_K, _more),), DOWN: ((T.Q6_K, _more),)}, raised=True),
    "q5_k_s": Mix(F.MOSTLY_Q5_K_S, T.Q5_K),
    "q5_k_m": Mix(F.MOSTLY_Q5_K_M, T.Q5_K, {VALUES: ((T.Q6_K, _more),), DOWN: ((T.Q6_K, _more),)}),
    "q6_k": Mix(F.MOSTLY_Q6_K, T.Q6_K),
    "iq4_nl": Mix(F.MOSTLY_IQ4_NL, T.IQ4_NL, {VALUES: ((T.Q5_K, _grouped),), DOWN: UNGUIDED}, raised=True),
    "iq4_xs": Mix(F.MOSTLY_IQ4_XS, T.IQ4_XS, {VALUES: ((T.Q5_K, _grouped),), DOWN: UNGUIDED}, raised=True),
    "tq1_0": Mix(F.MOSTLY_TQ1_0, T.TQ1_0, embedding=T.Q4_K),
    "tq2_0": Mix(F.MOSTLY_TQ2_0, T.TQ2_0, embedding=T.Q4_K),
    "mxfp4": Mix(F.MOSTLY_MXFP4_MOE, T.MXFP4, experts_only=True),
}
"""Name -> mix."""
FALLBACKS = {
    T.IQ4_XS: T.IQ4_NL, T.Q2_K: T.Q4_0, T.Q3_K: T.Q4_0, T.TQ1_0: T.Q4_0, T.TQ2_0: T.Q4_0,
    T.Q4_K: T.Q5_0, T.Q5_K: T.Q5_1, T.Q6_K: T.Q8_0,
}  # fmt: skip
"""Types with 256 weights per block -> what rows get that they do not divide; F16 where 32 do not either."""


def mix_of(name: str) -> Mix:
    """The mix of this name, in any case; RecipeError with the nearest where there is none."""
    if name.lower() not in MIXES:
        raise RecipeError(f"no mix is called {name!r}", where="type", fix=nearest(name.lower(), MIXES), key="type")
    return MIXES[name.lower()]


def types(
    name: str, shapes: Mapping[str, tuple[int, ...]], build: Build, imatrix: bool = False
) -> dict[str, GGMLQuantizationType]:
    """The type of each tensor of a file (name -> shape, the longest run last) in the mix `name`.

    `imatrix` says whether the codes are chosen by statistics of activations: some mixes spend bits otherwise then.
    RecipeError for an unknown mix, and one that needs an imatrix where there is none.
    """
    mix = mix_of(name)
    if mix.needs_imatrix and not imatrix:
        raise RecipeError(
            f"{name} is made only with an imatrix", where="type", fix="Give one, or choose q2_k", key="type"
        )
    counts = Counter(_role(tensor) for tensor in shapes)
    seen: Counter[str] = Counter()
    found = {}
    for tensor, shape in sorted(shapes.items(), key=lambda entry: (_block(entry[0]), entry[0])):
        if not takes_codes(tensor, shape):
            found[tensor] = T.F32
            continue
        role = _role(tensor)
        many = build.experts > 1 and role == DOWN
        count = build.blocks if role == DOWN else counts[role]
        place = Place(_block(tensor) if many else seen[role], count, build, imatrix)
        seen[role] += 1
        output = tensor == OUTPUT or (tensor == EMBEDDING and OUTPUT not in shapes)
        found[tensor] = legal(_wanted(mix, tensor, shape, place, output), shape[-1])
    return {tensor: found[tensor] for tensor in shapes}


def _wanted(mix: Mix, tensor: str, shape: tuple[int, ...], place: Place, output: bool) -> GGMLQuantizationType:
    """The type that a mix means for a tensor, whether or not its rows divide into whole blocks."""
    role, build = _role(tensor), place.build
    if output:
        whole = shape[-1] % GGML_QUANT_SIZES[mix.base][0] == 0
        return T.Q8_0 if mix.experts_only or not whole or mix.base is T.Q8_0 else T.Q6_K
    if mix.experts_only:
        return mix.base if len(shape) > 2 and shape[0] > 1 else T.Q8_0
    if tensor == EMBEDDING:
        return mix.embedding or mix.base
    if build.eight and role in (VALUES, KEYS):
        return T.Q8_0
    if build.eight and role == PROJECTION:
        return T.Q5_K if mix.raised else mix.base
    kind = next((kind for kind, holds in mix.rules.get(role, ()) if holds(place)), mix.base)
    return T.Q5_K if role == VALUES and build.seventy and kind in (T.Q3_K, T.Q4_K) else kind


def legal(kind: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """The type itself, or what takes its place where its blocks do not divide rows of so many weights.

    >>> legal(T.Q4_K, 576).name, legal(T.Q4_K, 100).name
    ('Q5_0', 'F16')
    """
    if columns % GGML_QUANT_SIZES[kind][0] == 0:
        return kind
    kind = FALLBACKS.get(kind, kind)
    return kind if columns % GGML_QUANT_SIZES[kind][0] == 0 else T.F16


def takes_codes(tensor: str, shape: tuple[int, ...]) -> bool:
    """Whether llama.cpp quantizes a tensor: no vectors, norms and routers. Source: `tensor_allows_quantization`."""
    kept = "_norm.weight" in tensor or "ffn_gate_inp.weight" in tensor
    return prod(shape[:-1]) > 1 and tensor.endswith("weight") and not kept


def _role(tensor: str) -> str:
    return next((role for part, role in ROLES.items() if part in tensor), "")


def _block(tensor: str) -> int:
    """The number of a tensor's block; -1 outside blocks."""
    parts = tensor.split(".")
    return int(parts[1]) if parts[0] == "blk" and len(parts) > 1 and parts[1].isdecimal() else -1
