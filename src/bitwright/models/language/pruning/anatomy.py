"""What can be taken out of a network: the MLP's channels, groups of attention heads, whole blocks, and where they lie.

Known are dense decoders of Llama's form, by the names and shapes of their parameters: an MLP of gate, up and down
projection, an attention of queries, keys, values and output, each a linear layer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitwright.errors import ModelError
from bitwright.models.language.arch import Architecture, Matrix

MLP = ("mlp.gate_proj", "mlp.up_proj")
"""Layers whose outputs are the MLP's channels; DOWN reads them."""
DOWN = "mlp.down_proj"
QUERY, KEY, VALUE, OUTPUT = (f"self_attn.{name}_proj" for name in "qkvo")
NORMS = ("self_attn.q_norm", "self_attn.k_norm")
"""What an attention may have besides, if all heads share it."""


@dataclass(frozen=True)
class Cut:
    """How a stored tensor of a block is cut: along `axis` in units of `size` numbers, `along` channels or groups."""

    along: str
    axis: int
    size: int


@dataclass
class Anatomy:
    """The parts of a network, all its blocks alike. Raises ModelError for one that is not known."""

    arch: Architecture

    def __post_init__(self) -> None:
        missing = [path for path in (*MLP, DOWN, QUERY, KEY, VALUE, OUTPUT) if f"{path}.weight" not in self._inside(0)]
        if missing:
            self._refuse(f"its block has no {missing[0]}")
        if self.arch.stacks or self.arch.merged:
            self._refuse("it stores several layers in one tensor")
        text = self.arch.config.get_text_config()
        for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_size"):
            if not isinstance(getattr(text, name, None), int):
                self._refuse(f"its config has no single {name}")
        if text is not self.arch.config:
            self._refuse("its decoder is a part of a larger network")
        first = self._inside(0)
        for block in range(1, self.arch.count):
            if self._inside(block) != first:
                self._refuse(f"blocks 0 and {block} are not alike")
        known = {*MLP, DOWN, QUERY, KEY, VALUE, OUTPUT}
        for name, shape in first.items():
            owner = name.rpartition(".")[0]
            part = name.partition(".")[0]
            fine = owner in known or (owner in NORMS and shape == (self.head,)) or part not in ("mlp", "self_attn")
            if not fine:
                self._refuse(f"nothing is known of its {name} {list(shape)}")
        shapes = {
            DOWN: (self.hidden, self.width), QUERY: (self.heads * self.head, self.hidden),
            KEY: (self.groups * self.head, self.hidden), OUTPUT: (self.hidden, self.heads * self.head),
        }  # fmt: skip
        for path, shape in shapes.items():
            if first[f"{path}.weight"] != shape:
                self._refuse(f"its {path} is {list(first[f'{path}.weight'])} where the config says {list(shape)}")

    def _refuse(self, why: str) -> None:
        raise ModelError(
            f"{type(self.arch.config).__name__} is not a network that can be pruned here: {why}",
            where=str(self.arch.checkpoint.folder),
            fix="Give a dense decoder of Llama's form (Llama, Mistral, Qwen 2 and 3, Gemma, SmolLM)",
        )

    def _inside(self, block: int) -> dict[str, tuple[int, ...]]:
        """Parameters of a block and their stored shapes, by their paths within it."""
        prefix = f"{self.arch.blocks}.{block}."
        targets, tensors = self.arch.targets, self.arch.checkpoint.tensors
        return {
            param.removeprefix(prefix): tensors[name].shape
            for name, param in targets.items()
            if param.startswith(prefix) and not self.arch.is_buffer(name)
        }

    @property
    def _text(self) -> Any:
        return self.arch.config.get_text_config()

    @property
    def hidden(self) -> int:
        """Numbers in a hidden state."""
        return int(self._text.hidden_size)

    @property
    def width(self) -> int:
        """Channels of the MLP."""
        return int(self._text.intermediate_size)

    @property
    def heads(self) -> int:
        """Heads of queries."""
        return int(self._text.num_attention_heads)

    @property
    def groups(self) -> int:
        """Heads of keys and values: groups of heads of queries that share them."""
        return int(self._text.num_key_value_heads)

    @property
    def head(self) -> int:
        """Numbers in a head."""
        return int(getattr(self._text, "head_dim", None) or self.hidden // self.heads)

    @property
    def sharing(self) -> int:
        """Heads of queries in a group."""
        return self.heads // self.groups

    @cached_property
    def legal(self) -> list[int]:
        """Numbers of groups that the network's config takes, the largest first: some want heads to divide the width."""
        return [groups for groups in range(self.groups, 0, -1) if self.config(self.with_groups(groups)) is not None]

    def with_groups(self, groups: int) -> dict[str, int]:
        """What the config says of so many groups."""
        heads = groups * self.sharing
        return {"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": self.head}

    def config(self, changes: Mapping[str, Any]) -> Any:
        """The network's config with `changes`, or None where its own checks refuse that."""
        from huggingface_hub.errors import StrictDataclassError

        try:
            return type(self.arch.config).from_dict({**self.arch.config.to_dict(), **changes})
        except (StrictDataclassError, ValueError):
            return None

    @cached_property
    def cuts(self) -> dict[str, Cut]:
        """How parameters of a block are cut, by their paths within it."""
        per = self.sharing * self.head
        layers = {
            **{path: Cut("channels", 0, 1) for path in MLP}, DOWN: Cut("channels", 1, 1), QUERY: Cut("groups", 0, per),
            KEY: Cut("groups", 0, self.head), VALUE: Cut("groups", 0, self.head), OUTPUT: Cut("groups", 1, per),
        }  # fmt: skip
        found = {f"{path}.weight": cut for path, cut in layers.items()}
        # A bias goes with its outputs; that of a layer whose inputs are cut stays whole.
        biases = {f"{path}.bias": cut for path, cut in layers.items() if cut.axis == 0}
        there = self._inside(0)
        return found | {path: cut for path, cut in biases.items() if path in there}

    @cached_property
    def per_channel(self) -> int:
        """Parameters of a block that go with one channel."""
        return self._per("channels", self.width)

    @cached_property
    def per_group(self) -> int:
        """Parameters of a block that go with one group of heads."""
        return self._per("groups", self.groups)

    def _per(self, along: str, count: int) -> int:
        there, total = self._inside(0), 0
        for path, cut in self.cuts.items():
            if cut.along == along:
                numbers = 1
                for size in there[path]:
                    numbers *= size
                total += numbers // count
        return total

    @cached_property
    def per_block(self) -> int:
        """Parameters of a whole block."""
        return sum(entry.count for entry in self.arch.tensors_of(0))

    def stored(self, block: int, path: str) -> str:
        """The stored tensor of a parameter, by its path within a block."""
        param = f"{self.arch.blocks}.{block}.{path}"
        return next(name for name, target in self.arch.targets.items() if target == param)

    def paths(self, block: int) -> dict[str, str]:
        """Paths within a block by the names of its stored tensors."""
        prefix = f"{self.arch.blocks}.{block}."
        return {
            name: param.removeprefix(prefix) for name, param in self.arch.targets.items() if param.startswith(prefix)
        }

    def matrix(self, block: int, path: str) -> Matrix:
        """The matrix of a layer, by the layer's path within a block."""
        return self.arch.matrices[self.stored(block, f"{path}.weight")]
