"""What compressed-tensors can store; needs no torch."""

from __future__ import annotations

from bitwright.core.format import Format
from bitwright.core.grid import E4M3, INT
from bitwright.errors import RecipeError

SCALES = ("bf16", "fp16", "fp32")
"""Types of scales."""
GROUPS = (128, 64, 32)
"""Groups that vLLM's Marlin kernels take, besides whole rows (MARLIN_SUPPORTED_GROUP_SIZES in
vllm/model_executor/layers/quantization/utils/marlin_utils.py at 007d5005); transformers reads any that divide a row."""


def require(format: Format, activations: str = "none") -> None:
    """Raise RecipeError where no stable packing exists for the format, or none with such activations."""
    integer = format.bits in (1, 2, 4, 8) and format.code is INT[format.bits]
    if not (integer or format.code is E4M3) or format.block == "tensor" or format.scale.type not in SCALES:
        raise RecipeError(
            f"compressed-tensors has no stable packing for {format.name}",
            where="format",
            key="layer.group" if format.block == "tensor" else "layer.format",
            fix="Use int2, int4, int8 or fp8 per channel or group, or --simulate to write decoded float weights",
        )
    if activations != "none" and (format.block != "channel" or format.zero is not None or format.bits != 8):
        raise RecipeError(
            f"{activations} activations need symmetric 8-bit weights per channel, not {format.name}",
            where="activations",
            key="layer.activations",
            fix="Use --bits 8 --group channel, or leave activations alone",
        )
    if (format.code is E4M3) != (activations == "fp8") and activations != "none":
        raise RecipeError("weights and activations must share a type", where="activations", fix="Use fp8 with fp8",
                          key="layer.activations")  # fmt: skip
