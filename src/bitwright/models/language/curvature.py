"""Output-side curvature: what an error at the outputs of a matrix costs, from one backward pass block by block.

Of every matrix G = E[g g^T] over tokens is gathered, g = d(-log p(y)) / d(the matrix's output [rows]), where labels y
are drawn from the model's own softmax. That makes G the output's factor of the Fisher information (Martens and Grosse
2015, https://arxiv.org/abs/1503.05671); the text's own next tokens would not (Kunstner et al. 2019,
https://arxiv.org/abs/1905.12558). An error E of the matrix costs about tr(G E H E^T) / 2 nats per token.

The text passes forward once, and the states that enter each block are kept. Then blocks come in reverse order: each is
computed again, now with a graph, and its inputs are replaced by their gradients. No gradient of a weight is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bitwright.core.stats import add_gram, mirror
from bitwright.errors import FileError, ModelError, ResourceError
from bitwright.events import Event, Note, Progress
from bitwright.files.folder import sync
from bitwright.files.plain import fingerprint
from bitwright.files.safetensors import Entry, read_bytes, read_header, view_bytes
from bitwright.machine import exhausted
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture, Placed
from bitwright.models.language.blocks import Decoder, Passage, Unchained, distribution, release
from bitwright.models.language.data import hash_ids
from bitwright.models.language.evaluate import batches
from bitwright.models.language.memory import GRAPH_TOKENS, LOGITS, POSITIONS
from bitwright.models.language.watch import Watch, addresses

KEPT = ".curvature-"
"""How names of files begin that keep finished blocks, and the gradient that goes on below them."""
SCALE = 2.0**12
"""By this the loss is multiplied, and G divided twice: gradients far below 1 stay normal numbers of bfloat16."""
SCHEME = 1
"""To be raised when other figures come out of the same job: kept files of older ones are then made anew."""


class Curvature:
    """G of the matrices of all blocks, kept in files of one block each until `remove`."""

    def __init__(
        self,
        arch: Architecture,
        device: str,
        windows: torch.Tensor,
        items: Sequence[Placed],
        folder: Path,
        budget: int,
        seed: int,
        rows: Callable[[Any], int],
        shared: bool = False,
    ) -> None:
        """`windows` int64 [count, length] are the text, `items` what to gather for: those outside blocks have none.

        Of G only the squares of `rows(item)` outputs that are solved together are kept. `budget` bounds the hidden
        states in memory, in bytes; the rest spills below `folder`, where finished blocks are kept as well.
        `seed` decides the labels, whatever the batches are. In a `shared` folder each job has one of its own, which one
        process makes and others find.
        """
        self.arch, self.windows, self.absent = arch, windows, dict[str, str]()
        self._device, self._folder, self._budget, self._seed = device, folder, budget, seed
        self._items: dict[int, list[Placed]] = {block: [] for block in range(arch.count)}
        for item in items:
            if item.part.block is not None:
                self._items[item.part.block].append(item)
        self._rows = {item.name: min(rows(item), item.rows) for item in items}
        self._lowest = min((block for block, held in self._items.items() if held), default=arch.count)
        self._sizes = [sum(entry.size for entry in arch.tensors_of(block)) for block in range(arch.count)]
        self._batches = batches(windows, max(1, GRAPH_TOKENS // windows.shape[1]))
        self._lock: Path | None = None
        if shared:
            named = hashlib.sha256(json.dumps([self._job, sorted(self._rows.items())]).encode()).hexdigest()[:16]
            self._folder, self._lock = folder / named, folder / f"{named}.lock"

    @property
    def _job(self) -> str:
        """SHA-256 of what decides the figures, but for which matrices they are of."""
        files = fingerprint([*self.arch.checkpoint.files, self.arch.checkpoint.folder / "config.json"])
        arithmetic = [self._device, str(next(self.arch.model.parameters()).dtype), torch.get_num_threads()]
        facts = [SCHEME, self._seed, hash_ids(self.windows), files, arithmetic]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def compute(self, progress: Callable[[float, str], Progress]) -> Generator[Event, None, None]:
        """Make what is not kept yet; to be run to its end before anything else runs this architecture's network.

        `progress` makes an event of bytes done and a label: the stored bytes of all blocks twice over in all. `absent`
        then names matrices without G, and why; notes tell of them. Raises ModelError where logits are not finite,
        TensorError where weights are not.
        """
        with ExitStack() as stack:
            if self._lock is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(self._lock.open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at it
            yield from self._compute(progress)

    def _compute(self, progress: Callable[[float, str], Progress]) -> Generator[Event, None, None]:
        job, first = self._job, self.arch.count
        while first > self._lowest and self._is_kept(first - 1, job):
            first -= 1
        resumed = first < self.arch.count
        if resumed and first > self._lowest and self._facts(self._gradient(first), job) is None:
            first, resumed = self.arch.count, False
        ahead, back = range(first - 1 if resumed else first), range(self._lowest, first)
        if not back:
            ahead = range(0)
        left = sum(self._sizes[block] for blocks in (ahead, back) for block in blocks)
        yield progress(2 * sum(self._sizes) - left, "output curvature")
        if back:
            try:
                yield from self._pass(ahead, back, job, progress)
            except Unchained as error:
                self._give_up(range(self._lowest, self.arch.count), error.what, job)
        for block in range(self._lowest, self.arch.count):
            self.absent |= self._facts(self._path(block), job)["absent"]  # type: ignore[index]
        yield from self._notes()

    def of(self, block: int) -> dict[str, torch.Tensor]:
        """G of the matrices of a block, by name, once `compute` is through: float32 [pieces, step, step].

        Piece k is that of rows [k step, (k + 1) step), `step` being `rows(item)` or all rows where they are fewer; the
        last one has zeros where rows end. See `piece`. What is `absent` is not there.
        """
        if block < self._lowest:
            return {}
        entries, _ = read_header(self._path(block))
        return {entry.name: _read(entry).to(self._device) for entry in entries}

    def remove(self) -> None:
        """Delete what is kept."""
        clear(self._folder)

    def _path(self, block: int) -> Path:
        return self._folder / f"{KEPT}{block}"

    def _gradient(self, block: int) -> Path:
        """Where the gradient at the input of a block is kept until the one before it is done."""
        return self._folder / f"{KEPT}input-{block}"

    # --- the passes

    def _pass(
        self, ahead: range, back: range, job: str, progress: Callable[[float, str], Progress]
    ) -> Generator[Event, None, None]:
        """Forward through blocks `ahead`, then back through `back`: from a gradient that is kept, or from the head."""
        arch, count = self.arch, self.arch.count
        decoder = Decoder(arch, device=self._device)
        passages = [Passage(ids) for ids in self._batches]
        # State i of block b is number b * len(passages) + i; those after the last block are of block `count`.
        states = Activations(self._budget, self._folder)
        for passage in passages:
            states.append(decoder.enter(passage))
        for block in ahead:
            share = self._sizes[block] / len(passages)
            with decoder.loaded(block, decoder.checked(block)):
                for i, passage in enumerate(passages):
                    states.append(decoder.run(block, states[block * len(passages) + i].clone(), passage))
                    if passage.beside or passage.shared:
                        raise Unchained("its blocks hand on more than hidden states")
                    yield progress(share, f"output curvature: forward through block {block + 1} of {count}")
        at = back.stop * len(passages)
        if len(states) == at:
            entries, _ = read_header(self._gradient(back.stop))
            for entry in sorted(entries, key=lambda entry: int(entry.name)):
                states.append(_read(entry).to(self._device))
        else:
            seeded = torch.Generator().manual_seed(self._seed)
            uniform = torch.rand(self.windows.shape, dtype=torch.float64, generator=seeded)
            for i, drawn in enumerate(batches(uniform, len(self._batches[0]))):
                states[at + i] = self._at_head(decoder, states[at + i], drawn.to(self._device))
                yield progress(0, "output curvature: labels drawn from the model's own answers")
            release()
        for block in reversed(back):
            why = yield from self._back(decoder, block, passages, states, job, progress)
            if why is not None:
                self._give_up(range(self._lowest, block + 1), f"no derivative of block {block} ({why})", job)
                break
        decoder.close()

    def _at_head(self, decoder: Decoder, hidden: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """The gradient of -log p(y) at the last hidden states [batch, tokens, width], times SCALE."""
        flat, drawn = hidden.reshape(1, -1, hidden.shape[-1]), uniform.reshape(-1)
        found = torch.empty_like(flat)
        step = max(1, min(POSITIONS, hidden.shape[1], LOGITS // decoder.vocabulary))
        for start in range(0, flat.shape[1], step):
            with torch.enable_grad():
                leaf = flat[:, start : start + step].detach().requires_grad_()
                logits = decoder.logits(leaf.clone())
            slope = distribution(logits, self.arch)  # p - 1 at the label is the gradient of -log p
            labels = draw(slope[0], drawn[start : start + step])
            slope[0, torch.arange(len(labels)), labels] -= 1
            [found[:, start : start + step]] = torch.autograd.grad(logits, leaf, (SCALE * slope).to(logits.dtype))
        return found.reshape(hidden.shape)

    def _back(
        self,
        decoder: Decoder,
        block: int,
        passages: list[Passage],
        states: Activations,
        job: str,
        progress: Callable[[float, str], Progress],
    ) -> Generator[Event, None, str | None]:
        """Compute a block again, gather its G, and put the gradients at its inputs in the place of these.

        Returns why that cannot be, where it cannot.
        """
        items, count = self._items[block], len(passages)
        with decoder.loaded(block, decoder.checked(block)) as module:
            names = addresses(module, f"{self.arch.blocks}.{block}", [item.part for item in items])
            taps = Taps(
                names, {item.name: (item.part.nth * item.rows, item.rows, self._rows[item.name]) for item in items}
            )
            for i, passage in enumerate(passages):
                leaf = states[block * count + i].detach().requires_grad_()
                try:
                    with torch.enable_grad(), taps:
                        output = decoder.run(block, leaf.clone(), passage)
                    given = None
                    if output.requires_grad:
                        above = states[(block + 1) * count + i]
                        [given] = torch.autograd.grad(output, leaf, above, allow_unused=True)
                except (ModelError, RuntimeError) as error:
                    if exhausted(error):
                        raise
                    return error.what if isinstance(error, ModelError) else " ".join(str(error).split())[:200]
                states[block * count + i] = torch.zeros_like(leaf) if given is None else given
                del output
                label = f"output curvature: back through block {block + 1} of {self.arch.count}"
                yield progress(self._sizes[block] / count, label)
        found, absent = {}, {}
        for item in items:
            g = taps.gram(item.name)
            if isinstance(g, str):
                absent[item.name] = g
            else:
                found[item.name] = g
        if block > self._lowest:
            self._write(self._gradient(block), {str(i): states[block * count + i] for i in range(count)}, job, {})
        self._write(self._path(block), found, job, absent)
        self._gradient(block + 1).unlink(missing_ok=True)
        return None

    def _give_up(self, blocks: range, why: str, job: str) -> None:
        """Keep of these blocks that they have none."""
        for block in blocks:
            self._write(self._path(block), {}, job, {item.name: why for item in self._items[block]})

    def _notes(self) -> Iterator[Note]:
        """What is absent, a note for each reason."""
        total = sum(map(len, self._items.values()))
        for why in dict.fromkeys(self.absent.values()):
            names = [name for name, reason in self.absent.items() if reason == why]
            yield Note(f"no output curvature for {len(names)} of {total} matrices, first {names[0]}: {why}")

    # --- what is kept

    def _is_kept(self, block: int, job: str) -> bool:
        """Whether the file of a block is whole, of this job, and tells of every matrix."""
        facts = self._facts(self._path(block), job)
        if facts is None:
            return False
        shapes = {entry.name: entry.shape for entry in read_header(self._path(block))[0]}
        wanted = {
            item.name: (-(-item.rows // step), step, step)
            for item in self._items[block]
            for step in [self._rows[item.name]]
            if item.name not in facts["absent"]
        }
        return wanted.items() <= shapes.items()

    def _facts(self, path: Path, job: str) -> dict[str, Any] | None:
        """What a kept file says of itself; None where it is not there, damaged or of another job."""
        if not path.is_file():
            return None
        try:
            entries, metadata = read_header(path)
            facts: dict[str, Any] = json.loads(metadata["facts"])
            good = facts["job"] == job and facts["sum"] == _sum({entry.name: _read(entry) for entry in entries})
        except (FileError, KeyError, ValueError):
            return None
        return facts if good else None

    def _write(self, path: Path, tensors: dict[str, torch.Tensor], job: str, absent: dict[str, str]) -> None:
        """Keep a file: it gets its name once its bytes are on disk. ResourceError where they cannot be."""
        there = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        facts = {"job": job, "sum": _sum(there), "absent": absent}
        half = path.with_suffix(".half")
        try:
            save_file(there, half, {"facts": json.dumps(facts)})
        except SafetensorError as error:
            raise ResourceError(f"cannot be written ({error})", where=str(half), fix="Free disk space") from error
        sync([half])
        half.rename(path)


class Taps(Watch):
    """Sums g g^T of the gradients at the outputs of matrices, when a backward pass comes by what it saw."""

    def __init__(self, names: Mapping[int, list[str]], places: Mapping[str, tuple[int, int, int]]) -> None:
        """`names` as for Watch. `places`: where in a product a matrix's outputs begin, how many, how many a square."""
        super().__init__(names)
        self._places = places
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._tokens: Counter[str] = Counter()
        self._fed: set[str] = set()

    def answered(self, y: torch.Tensor, x: torch.Tensor, names: list[str], at: int | None = None) -> None:
        """Have the gradient at `y` added when it comes; in a stack, rows of zeros are other experts' tokens."""
        kept = None if at is None else x[at].detach().any(dim=-1)
        if kept is not None and not bool(kept.any()):
            return
        self._fed.update(names)
        if y.requires_grad:
            hooked: Any = y
            hooked.register_hook(partial(self._add, names, at, kept))

    def _add(self, names: list[str], at: int | None, kept: torch.Tensor | None, g: torch.Tensor) -> None:
        part = g if at is None else g[at]
        rows = (part if kept is None else part[kept]).reshape(-1, g.shape[-1])
        for name in names:
            first, count, step = self._places[name]
            parts = torch.split(rows[:, first : first + count], step, dim=1)
            sums = self._sums.get(name, [None] * len(parts))
            self._sums[name] = [add_gram(part, upper) for part, upper in zip(parts, sums, strict=True)]
            self._tokens[name] += len(rows)

    def gram(self, name: str) -> torch.Tensor | str:
        """G of a matrix, float32 [pieces, step, step], or why there is none; its sums go."""
        sums = self._sums.pop(name, None)
        if name not in self._fed:
            return "no token reaches it"
        if sums is None or not all(bool(torch.isfinite(part).all()) for part in sums):
            return "no gradient reaches it" if sums is None else "its gradient is not finite"
        if not any(bool(part.any()) for part in sums):
            return "its gradient is zero"
        found = sums[0].new_zeros(len(sums), *sums[0].shape)
        for whole, part in zip(found, sums, strict=True):
            whole[: len(part), : len(part)] = mirror(part)
        return found.div_(SCALE**2 * self._tokens[name])


def draw(p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Tokens [positions] drawn by their probabilities `p` [positions, words], by `uniform` float64 in [0, 1).

    The distribution is inverted: one number per position is drawn, not one per word.
    """
    mass = p.cumsum(-1, dtype=torch.float64)
    found = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True)[:, 0]
    return found.clamp_max(p.shape[-1] - 1)


def piece(g: torch.Tensor, start: int, rows: int) -> torch.Tensor:
    """G [rows, rows] of the rows from `start` on, which must be a multiple of the step of `g` [pieces, step, step]."""
    return g[start // g.shape[1], :rows, :rows]


def kept(folder: Path) -> int:
    """Bytes that an earlier run keeps in a folder."""
    return sum(path.stat().st_size for path in folder.glob(f"{KEPT}*"))


def clear(folder: Path) -> None:
    """Delete what is kept in a folder, halves of files included."""
    for path in folder.glob(f"{KEPT}*"):
        path.unlink()


def _read(entry: Entry) -> torch.Tensor:
    raw = torch.empty(entry.size, dtype=torch.uint8)
    read_bytes(entry.path, entry.offset, raw)
    return raw.view(entry.dtype).reshape(entry.shape)


def _sum(tensors: Mapping[str, torch.Tensor]) -> int:
    """CRC-32 of the bytes of tensors, in the order of their names."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(view_bytes(tensors[name]), crc)
    return crc
