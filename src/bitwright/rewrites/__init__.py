"""Rewrites: changes of a float network, or of a rounded layer's bias, that cost nothing when it runs. One file each."""

from __future__ import annotations

from typing import Any

from bitwright.registry import Registry
from bitwright.rewrites.rewrite import Rewrite, Rounded, Subject

registry: Registry[Rewrite] = Registry(Rewrite, "bitwright.rewrites", "REWRITE", key="network")

__all__ = ["Rewrite", "Rounded", "Subject", "chosen", "registry"]


def chosen(settings: Any) -> list[Rewrite]:
    """The rewrites that a recipe's table asks for, in the order in which they are done."""
    found = [rewrite for rewrite in registry.all() if rewrite.asked(settings)]
    return sorted(found, key=lambda rewrite: len(rewrite.after))
