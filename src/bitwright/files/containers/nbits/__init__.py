"""MatMulNBits: ONNX Runtime's products of packed weights with float activations. The bytes are `packing`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Block
from bitwright.files.container import Counted, GraphContainer, refuse
from bitwright.files.containers.qdq import narrow
from bitwright.files.held import Module
from bitwright.files.usage import in_onnxruntime

GROUPS = (16, 32, 64, 128, 256)
"""Weights per scale that MatMulNBits knows."""


class NBits(GraphContainer):
    """Weights only: 4 or 8 bits in groups."""

    name = "nbits"
    title = "ONNX with MatMulNBits, weights only"
    integer = False
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
        if found.block not in GROUPS or found.bits not in (4, 8):
            raise refuse(
                f"MatMulNBits does not store {name} per {found.block}",
                "Use --bits 4 or 8 and --group 16, 32, 64, 128 or 256",
                "layer.group" if found.bits in (4, 8) else "layer.format",
                where,
            )
        return found

    def require(self, format: Format, activations: str = "none") -> None:
        self.format(format.name, group=format.block, symmetric=format.zero is None)

    def write(
        self, graph: Any, placement: Any, weights: Mapping[str, QTensor], activations: Mapping[str, Any], network: Any
    ) -> Any:
        from bitwright.files.containers.nbits.packing import matmul_nbits

        return matmul_nbits(graph, weights)

    def decode(self, model: Any) -> dict[str, Any]:
        from bitwright.files.containers.nbits.packing import decode

        return decode(model)

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        return {"ONNX Runtime": in_onnxruntime(name)}

    def count(self, model: Any) -> dict[str, Counted]:
        from bitwright.files.containers.nbits.packing import counted

        return counted(model)

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["ONNX Runtime (its own operator MatMulNBits)"]


CONTAINER = NBits()
