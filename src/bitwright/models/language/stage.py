"""Stages on language models: a float folder becomes a float folder, tensor by tensor, in files of fixed layout.

A stage of its own says which tensors there will be (`specs`), what config.json says besides (`config`), and writes them
(`write`) in its `work`; text, resuming, reading back and the verdict are the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitwright import machine
from bitwright.errors import ModelError, about
from bitwright.events import Event, Progress
from bitwright.files import gguf, sidecars
from bitwright.files.folder import require_finite, write_config
from bitwright.files.plain import fingerprint
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Layout, Spec
from bitwright.files.usage import in_transformers, in_vllm
from bitwright.models.language import outline, text
from bitwright.models.language.arch import Architecture
from bitwright.models.language.compare import compare_on_text
from bitwright.models.language.mixture import shares_of
from bitwright.models.language.reread import by_safetensors, by_transformers
from bitwright.models.language.sink import SHARD, copied, require_intact
from bitwright.models.language.text import Order, Text
from bitwright.models.stage import Record, Size, Stage


class FolderStage(Stage):
    """A stage whose source and output are folders that transformers understands."""

    def __post_init__(self) -> None:
        if gguf.is_gguf(self.source):
            raise ModelError(
                f"a GGUF file: to {self.name} takes the float weights", where=str(self.source),
                fix="Give the folder that it was made from, then quantize the output with --type",
            )  # fmt: skip
        self.arch = Architecture.open(self.source, machine.calibration_dtype(self.device))
        if isinstance(self.arch.checkpoint, QuantizedCheckpoint) or self.arch.checkpoint.quantized:
            fix = f"Start from the float model, and quantize the output of bitwright {self.name}"
            raise ModelError(f"already quantized: to {self.name} takes the float weights", where=str(self.source),
                             fix=fix)  # fmt: skip
        self.notes += outline.notes(self.arch, self.settings.copy_code)

    # --- what a stage of its own says

    @abstractmethod
    def specs(self) -> list[Spec]:
        """Every tensor of the output, in the source's order of files and offsets."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the output's config.json says besides the source's."""

    # --- sizes

    @cached_property
    def layout(self) -> Layout:
        """Where each tensor of the output lies."""
        return Layout(self.specs(), self.settings.max_shard_bytes or SHARD)

    @cached_property
    def before(self) -> Size:
        entries = self.arch.checkpoint.tensors.values()
        inside = sum(e.count for b in range(self.arch.count) for e in self.arch.tensors_of(b))
        files = sum(file.stat().st_size for file in self.arch.checkpoint.files)  # as the output's: with their headers
        return Size(sum(e.count for e in entries), inside, files)

    @property
    def reference(self) -> Path:
        """The model that the output is compared with."""
        return self.source

    # --- data

    @property
    def order(self) -> Order:
        """The text that it learns from and is judged on."""
        c = self.settings.calibration
        judged = c.heldout_windows if c.own and c.heldout is None else 0
        return Order(c, c.windows if c.own else 0, judged, self.widths, self.partial, self.room)

    @property
    def widths(self) -> Mapping[str, int]:
        """Inputs of the narrowest and the widest matrix that are fitted on the text; empty where none is."""
        return {}

    def require_data(self) -> None:
        with about("calibration.source"):
            shares_of(self.settings.calibration)
        text.require_length(self.arch.config.get_text_config(), self.source, self.settings.calibration.length)

    def read_data(self) -> Generator[Event, None, Text]:
        return (yield from text.gather(self.order, self.arch, self.device))

    def data_hash(self, data: Text) -> str:
        return data.calibration_hash

    def identity(self) -> Any:
        return {
            "files": fingerprint([*self.arch.checkpoint.files, self.source / "config.json"]),
            # Sums of a matrix product are taken in another order by another number of threads.
            "arithmetic": [self.device, str(machine.calibration_dtype(self.device)), torch.get_num_threads()],
        }

    # --- writing

    def create(self) -> None:
        self.partial.mkdir(parents=True, exist_ok=True)
        self.layout.create(self.partial)

    def intact(self, sums: Mapping[str, int]) -> bool:
        place, folder = self.layout.place, self.partial
        return all(name in place and self.layout.checksum(folder, name) == crc for name, crc in sums.items())

    def write(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Write tensors under their stored names, in the dtypes planned; their {stored name: CRC-32}.

        Raises TensorError where one is not finite.
        """
        sums = {}
        for name, tensor in tensors.items():
            stored = tensor.detach().to("cpu", self.layout.place[name][2].dtype).contiguous()
            require_finite(name, stored)
            sums[name] = self.layout.write(self.partial, name, stored)
        return sums

    def copy(self, name: str) -> dict[str, int]:
        """Write a source tensor as it is, checked; its {stored name: CRC-32}."""
        return copied(self.arch, name, self.layout, self.partial)

    def finish(self) -> list[Path]:
        sidecars.copy(self.source, self.partial, self.settings.copy_code)
        write_config(self.source, self.partial, self.config())
        return [self.partial / file for file in sorted(self.layout.files)]

    # --- judging

    def source_files(self) -> list[Path]:
        return self.arch.checkpoint.files

    def decoders(self) -> dict[str, str]:
        return {"safetensors": version("safetensors"), "transformers": version("transformers")}

    def verify(self, sums: Mapping[str, int]) -> Iterator[Event]:
        require_intact(self.layout, self.partial, sums)
        by_safetensors(self.layout, self.partial, sums)
        yield Progress("certify", 1, 1, "read by safetensors")

    def judge(self, data: Text) -> Generator[Event, None, dict[str, Any]]:
        budget = max(16 * machine.MIB, (self.room - self.estimate.needed) // 2)
        verdict = yield from compare_on_text(self.reference, self.partial, data, budget, {"rounded_inputs": False})
        ids = data.heldout[:1, :64]
        loaded = by_transformers(self.partial, ids, self.after.parameters, self.room)
        return {"text": data.summary, "verdict": verdict, "loaded_by_transformers": loaded}

    def runtimes(self) -> list[str]:
        return ["transformers and vLLM, as any float folder; llama.cpp once it is quantized with --type"]

    def usage(self) -> Mapping[str, tuple[str, str]]:
        return {"transformers": ("python", in_transformers(".")), "vLLM": in_vllm(".")}

    def clean(self) -> None:
        for kept in self.partial.glob(f"{Path(text.OWN).stem}.*"):  # a killed run may have left half of one
            kept.unlink()


def copy_rest(stage: FolderStage, record: Record, changed: set[str]) -> Iterator[Event]:
    """Write the tensors of the output that are not `changed` as the source has them, unless that is done."""
    names = [name for name in stage.layout.place if name not in changed and name not in record.done]
    for done, name in enumerate(names, 1):
        record.add(name, stage.copy(name), None)
        yield Progress(stage.name, done, len(names), f"copying {name}")
