"""A network of transformers in training: its logits, and the hidden states after its last block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Student(nn.Module):
    """A whole network in float32, and a linear map from its hidden states to the teacher's where those are compared.

    It computes as it does in use, without dropout: what is random in it would differ from what is judged.
    """

    def __init__(
        self, network: nn.Module, blocks: str, *, short: bool, width: int | None = None, seed: int = 0
    ) -> None:
        """`blocks` is the path of its block list, `short` says to multiply in bfloat16, `width` is the teacher's."""
        super().__init__()
        self.network = network.eval().requires_grad_(True)
        self.short = short
        self.map: nn.Linear | None = None
        self._seen: Tensor | None = None
        if width is None:
            return
        own = self.config.get_text_config(decoder=True).hidden_size
        start = torch.randn(width, own, generator=torch.Generator().manual_seed(seed)) / own**0.5
        self.map = nn.Linear(own, width, bias=False, device=self.device)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(own) if width == own else start)
        list(network.get_submodule(blocks).children())[-1].register_forward_hook(self._note)

    def _note(self, module: nn.Module, args: Any, out: Any) -> None:
        self._seen = out[0] if isinstance(out, tuple) else out

    @property
    def config(self) -> Any:
        """That of its network."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @property
    def words(self) -> int:
        """Words that it gives logits for."""
        found: Any = self.network
        return int(found.get_output_embeddings().weight.shape[0])

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [windows, length, words] float32, and hidden states [windows, length, width] where they are mapped."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.short):
            logits = self.network(input_ids=ids, use_cache=False).logits
        seen, self._seen = self._seen, None
        return logits.float(), seen

    def mapped(self, hidden: Tensor | None) -> Tensor:
        """Its hidden states as the teacher would have them [windows, length, teacher's width]."""
        assert self.map is not None and hidden is not None
        found: Tensor = self.map(hidden.float())
        return found
