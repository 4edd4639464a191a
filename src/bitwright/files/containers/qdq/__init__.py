"""QDQ: integer networks with QuantizeLinear and DequantizeLinear around the operators. The bytes are `writer`'s."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Block
from bitwright.files.container import Counted, GraphContainer, refuse
from bitwright.files.held import Module
from bitwright.files.usage import in_onnxruntime

BITS = re.compile(r"int([2-8])(_narrow)?")


def narrow(name: str, symmetric: bool, where: str) -> str:
    """The integers of narrow range that a recipe's `int4` means in an ONNX network; RecipeError for anything else."""
    found = BITS.fullmatch(name)
    if found is None or not symmetric:
        words = f"{name}{'' if symmetric else ' with zero points'}"
        key = "layer.format" if found is None else "layer.symmetric"
        raise refuse(f"{words} does not run in an integer layer", "Choose int2 to int8, symmetric", key, where)
    return f"int{found[1]}_narrow"


class QDQ(GraphContainer):
    """8-bit activations and weights of 2 to 8 bits, which ONNX Runtime and TensorRT run in integer kernels."""

    name = "qdq"
    title = "ONNX with QuantizeLinear and DequantizeLinear"
    integer = True
    ladder = ("int4", "int8")

    def format(
        self,
        name: str,
        *,
        group: Block | None = None,
        symmetric: bool = True,
        scale: str = "fp32",
        activations: str = "none",
        where: str = "format",
    ) -> Format:
        found = formats.named(narrow(name, symmetric, where), group=group, scale=scale)
        if isinstance(found.block, int):
            raise refuse(
                f"groups of {found.block} weights do not run in integers",
                'Use --group channel, or activations = "none" in [network] for weight-only MatMulNBits',
                "layer.group",
                where,
            )
        return found

    def require(self, format: Format, activations: str = "none") -> None:
        narrow(format.name, format.zero is None, "format")

    def stored(self, format: Format, recipe: Any) -> Format:
        """Codes of integer kernels take a byte each, however few bits they use, unless `storage` packs them."""
        if recipe.network.storage == "int4" and format.bits <= 4:
            return formats.named("int4_narrow", group=format.block, scale=format.scale.type)
        return formats.named("int8_narrow", group=format.block, scale=format.scale.type)

    def write(
        self, graph: Any, placement: Any, weights: Mapping[str, QTensor], activations: Mapping[str, Any], network: Any
    ) -> Any:
        from bitwright.files.containers.qdq.writer import to_qdq

        float_bias = network.target == "gpu"
        return to_qdq(graph, placement, weights, activations, storage=network.storage, float_bias=float_bias)

    def decode(self, model: Any) -> dict[str, Any]:
        from bitwright.files.containers.qdq.writer import decode

        return decode(model)

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        return {"ONNX Runtime": in_onnxruntime(name)}

    def count(self, model: Any) -> dict[str, Counted]:
        from bitwright.files.containers.qdq.writer import counted

        return counted(model)

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["ONNX Runtime, in integer kernels", "anything that reads QDQ networks"]


CONTAINER = QDQ()
