"""Containers: how a quantized model is stored. Each is one module or folder here, found automatically.

    from bitwright.files import containers
    containers.registry.get("compressed-tensors").title

A module of this folder provides `CONTAINER`; its name has hyphens where the module's has underscores.
"""

from bitwright.files.container import Container, GraphContainer, Place, Stored, TensorContainer
from bitwright.files.held import Held
from bitwright.registry import Registry

registry: Registry[Container] = Registry(
    Container, "bitwright.files.containers", "CONTAINER", group="bitwright.containers", key="output"
)

__all__ = ["Container", "GraphContainer", "Held", "Place", "Stored", "TensorContainer", "registry"]
