"""A model's architecture as data: which tensors a folder holds, what each becomes, and where the blocks are.

Nothing here knows a model by name. The network is built by transformers on the meta device (no memory), and
transformers' own checkpoint conversions say which parameter each stored tensor becomes.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from bitwright.errors import ModelError
from bitwright.files.folder import network_of, open_checkpoint, read_config, require_finite
from bitwright.files.safetensors import Checkpoint, Entry
from bitwright.models.language.stacks import Stack, counts, divide, holds_experts, transposed


@dataclass(frozen=True)
class Matrix:
    """One stored weight matrix that a linear map uses: `rows` outputs, `columns` inputs.

    `name` is the checkpoint tensor, `param` the module parameter it becomes (or a part of), `block` the decoder block
    it belongs to (None for embedding and head). `transposed` is True where the file stores [inputs, outputs] (GPT-2's
    Conv1D); `expert` is the expert's number where the parameter stacks all experts of a layer, else None, and `nth` its
    place where the parameter joins the rows of several matrices of one size. `lookup` is True for an embedding, whose
    rows are looked up by token; `shared` are the modules that multiply by the very same tensor, such as a tied head.
    """

    name: str
    param: str
    rows: int
    columns: int
    block: int | None
    transposed: bool = False
    expert: int | None = None
    nth: int = 0
    lookup: bool = False
    shared: tuple[str, ...] = ()

    @property
    def multiplied(self) -> bool:
        """Whether a layer multiplies by it: by an embedding only where a head shares it."""
        return not self.lookup or bool(self.shared)

    @property
    def module(self) -> str:
        """The name without `.weight`: what runtimes call the layer."""
        return self.name.removesuffix(".weight")


class Placed(Protocol):
    """What has a matrix for its part: an item of a plan, or one of whatever else works on matrices."""

    @property
    def part(self) -> Any: ...
    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...


@dataclass
class Architecture:
    """The architecture of a model folder. Build with `Architecture.open`."""

    checkpoint: Checkpoint
    config: Any
    model: Any
    blocks: str
    """Dotted path of the decoder's block list, e.g. `model.layers`."""
    count: int
    """Number of decoder blocks."""
    targets: dict[str, str] = field(default_factory=dict)
    """Checkpoint tensor -> module parameter."""
    matrices: dict[str, Matrix] = field(default_factory=dict)
    conversions: list[Any] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """Tensors that no module of the network uses (kept as they are)."""
    stacks: list[Stack] = field(default_factory=list)
    """Tensors of all experts of a block, which appear divided in the checkpoint."""
    beyond: dict[str, int] = field(default_factory=dict)
    """Those of them that belong to decoder blocks which the config does not count -> the block."""
    merged: list[str] = field(default_factory=list)
    """Tensors that are no matrices, and that transformers joins with others to one parameter."""

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Architecture:
        """Read config and tensor headers of `folder` and build the network without weights, in `dtype`.

        Raises ModelError where there is no usable config, or config and tensors disagree.
        """
        checkpoint = open_checkpoint(folder)
        config = load_config(folder)
        _require_count(config, checkpoint)
        model = build(config, dtype, folder)
        path, count = find_blocks(model, folder)
        arch = cls(checkpoint, config, model, path, count)
        arch._match()
        arch._require_counted()
        arch._require_one_head()
        arch._require_own_weights()
        return arch

    def _match(self) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        # A tied pair may be stored under either name; transformers takes the one that is there.
        stored = self.checkpoint.tensors
        swapped = [(p, source) for p, source in self._ties.items() if p in stored and source not in stored]
        self.conversions = [
            *get_model_conversion_mapping(self.model),
            *(WeightRenaming(f"^{re.escape(p)}$", source) for p, source in swapped),
        ]
        renamings = [c for c in self.conversions if isinstance(c, WeightRenaming)]
        converters = [c for c in self.conversions if isinstance(c, WeightConverter)]
        params = self.model.state_dict(keep_vars=True)
        modules = dict(self.model.named_modules())
        numbers = counts(self.config.to_dict())

        def renamed(name: str) -> str:
            return str(rename_source_key(name, renamings, [], self.model.base_model_prefix, params)[0])

        parts: set[str] = set()  # what else a stored tensor becomes that is cut into several parameters
        for name, entry in self.checkpoint.tensors.items():
            param, pattern = rename_source_key(name, renamings, converters, self.model.base_model_prefix, params)
            owner = modules.get(param.rpartition(".")[0])
            stacked = pattern is None and self.block_of(param) is not None and param in params
            if stacked and entry.shape == params[param].shape and holds_experts(owner, params[param], numbers):
                self.stacks.append(divide(name, param, entry.shape, converters, renamed))
        turned: set[str] = set()
        if self.stacks:
            width = self.config.get_text_config(decoder=True).hidden_size
            turned = transposed(self.stacks, modules, {name: param.shape for name, param in params.items()}, width)
        own = {c.source_patterns[0]: c for _, _, _, c in self.stacks if c is not None}
        converters += own.values()
        self.conversions += own.values()
        self.divide(self.checkpoint)
        for name, entry in self.checkpoint.tensors.items():
            param, pattern = rename_source_key(name, renamings, converters, self.model.base_model_prefix, params)
            if param not in params:
                if name in params:
                    param, pattern = name, None
                else:
                    self.outside.append(name)
                    block = self.block_of(param)
                    if block is not None and block >= self.count:
                        self.beyond[name] = block
                    continue
            self.targets[name] = param
            if params[param].is_floating_point() and not entry.dtype.is_floating_point:
                raise ModelError(
                    f"holds {str(entry.dtype).removeprefix('torch.')} where the network has floating-point weights",
                    where=f"{entry.path}: {name}",
                    fix="Start from the float model: these may be codes of another tool, whose scales are elsewhere",
                )
            if pattern is None and tuple(params[param].shape) != entry.shape:
                raise ModelError(
                    f"config and tensors disagree: the config makes it {list(params[param].shape)}, "
                    f"the file holds {list(entry.shape)}",
                    where=f"{entry.path}: {name}",
                    fix="Use the config.json that belongs to these weights",
                )
            converter = next((c for c in converters if pattern in c.source_patterns), None)
            cut: list[str] = [] if converter is None else converter.target_patterns
            parts |= {param.replace(cut[0], other) for other in cut[1:]}
            matrix = self._matrix(entry, param, pattern, modules, turned) if len(cut) < 2 else None
            if matrix is not None:
                nth = 0 if converter is None else converter.source_patterns.index(pattern)
                self.matrices[name] = replace(matrix, nth=nth)
            elif converter is not None and len(converter.source_patterns) > 1:
                self.merged.append(name)
        scales = [n for n in self.outside if n.partition(".weight_scale")[0] + ".weight" in self.targets]
        if scales:
            raise ModelError(
                "a scale beside weights that are not said to be quantized: they would be read without it",
                where=f"{self.checkpoint.entry(scales[0]).path}: {scales[0]}",
                fix="Start from the float model, or use the config.json that belongs to these weights",
            )
        missing = sorted(set(params) - set(self.targets.values()) - parts - set(self._ties))
        missing = [name for name in missing if not _is_buffer(self.model, name)]
        if missing:
            raise ModelError(
                f"config and tensors disagree: {len(missing)} parameters have no tensor, first {missing[0]}",
                where=str(self.checkpoint.folder),
                fix="Use the config.json that belongs to these weights, or download the missing shards",
            )

    def divide(self, checkpoint: Checkpoint) -> Checkpoint:
        """A folder of this network with its stacked experts one by one, as far as it holds them stacked."""
        for stack in self.stacks:
            if stack.name in checkpoint.tensors:
                checkpoint.divide(stack.name, stack.parts)
        return checkpoint

    def rows(self, part: Matrix, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of a matrix in their own dtype, checked to be finite."""
        checkpoint = self.checkpoint
        if part.transposed:
            stored = checkpoint.read(part.name).T.contiguous()
        else:
            stored = checkpoint.read(part.name, start, stop)
        require_finite(f"{checkpoint.entry(part.name).path}: {part.name}", stored, start)
        return stored

    @cached_property
    def inseparable(self) -> set[str]:
        """Matrices of experts that transformers reads from one tensor alone."""
        return {name for stack in self.stacks if stack.converter is not None for name, _ in stack.parts}

    def _require_counted(self) -> None:
        """Raise ModelError where the config leaves out as many blocks as it counts: no draft head is so large."""
        more = len(set(self.beyond.values()))
        if more >= self.count:
            raise ModelError(
                f"config and tensors disagree: the config counts {self.count} decoder blocks, "
                f"the files hold {more} more, first {next(iter(self.beyond))}",
                where=str(self.checkpoint.folder / "config.json"),
                fix="Correct num_hidden_layers, or use the config.json that belongs to these weights",
            )

    def _require_one_head(self) -> None:
        """Raise ModelError where parameters that the config ties are stored with different values.

        transformers then leaves them apart (modeling_utils.py, tie_weights); other runtimes take the embedding.
        """
        stored = {param: name for name, param in self.targets.items()}
        for param, source in self._ties.items():
            if param in stored and source in stored and not self._equal(stored[param], stored[source]):
                raise ModelError(
                    f"the config ties it to {stored[source]}, and the file holds other values for it",
                    where=f"{self.checkpoint.entry(stored[param]).path}: {stored[param]}",
                    fix="Set tie_word_embeddings to false in config.json to use both, or remove the tensor",
                )

    def _require_own_weights(self) -> None:
        """Raise ModelError where blocks share weights: a block's own then do not make it whole."""
        for param, source in self._ties.items():
            if None not in (self.block_of(param), self.block_of(source)):
                raise ModelError(
                    f"its blocks share weights ({param} is {source}): one cannot run without the other, and "
                    "transformers does not load such a network packed",
                    where=str(self.checkpoint.folder),
                    fix="Give a model whose blocks have weights of their own",
                    foreign=True,
                )

    def _equal(self, a: str, b: str) -> bool:
        """Whether two tensors hold the same values."""
        rows = max(1, (1 << 24) // max(self.checkpoint.entry(a).row_size, 1))
        return self.checkpoint.entry(a).shape == self.checkpoint.entry(b).shape and all(
            torch.equal(piece.float(), self.checkpoint.read(b, start, start + rows).float())
            for start, piece in self.checkpoint.chunks(a, rows)
        )

    def _matrix(
        self, entry: Entry, param: str, pattern: str | None, modules: dict[str, Any], turned: set[str]
    ) -> Matrix | None:
        """The matrix stored in `entry`, or None: embeddings, norms, biases, routers are not linear layers' weights."""
        if len(entry.shape) != 2:
            return None
        owner, _, leaf = param.rpartition(".")
        module = modules.get(owner)
        block = self.block_of(param)
        if isinstance(module, torch.nn.Linear) and leaf == "weight":
            return Matrix(entry.name, param, *entry.shape, block)
        if type(module).__name__ == "Conv1D" and leaf == "weight":
            return Matrix(entry.name, param, entry.shape[1], entry.shape[0], block, transposed=True)
        stacked = pattern is not None and self.model.get_parameter(param).dim() == 3
        number = re.search(r"\.(\d+)\.(?!.*\.\d+\.)", entry.name)
        if stacked and number is not None and block is not None:
            rows, columns = entry.shape
            expert = int(number.group(1))
            if entry.part_of is not None and entry.part_of.name in turned:
                return Matrix(entry.name, param, columns, rows, block, transposed=True, expert=expert)
            return Matrix(entry.name, param, rows, columns, block, expert=expert)
        return None

    @property
    def _ties(self) -> dict[str, str]:
        """Parameters that share another's tensor -> the other."""
        return dict(getattr(self.model, "all_tied_weights_keys", {}) or {})

    @cached_property
    def head(self) -> str | None:
        """The checkpoint tensor of the output head: its own, or the embedding's where they are tied, or None."""
        module = self.model.get_output_embeddings()
        param = _name_of(self.model, module)
        if param in self._ties:
            return self.embedding
        return next((name for name, target in self.targets.items() if target == param), None)

    @cached_property
    def head_module(self) -> str | None:
        """The head's module path, e.g. `lm_head`."""
        param = _name_of(self.model, self.model.get_output_embeddings())
        return param.removesuffix(".weight") if param else None

    @cached_property
    def embedding(self) -> str | None:
        """The checkpoint tensor of the input embedding."""
        param = _name_of(self.model, self.model.get_input_embeddings())
        return next((name for name, target in self.targets.items() if target == param), None)

    @cached_property
    def unpacks(self) -> bool:
        """Whether transformers can load these blocks only by unpacking them (CompressedTensorsConfig(dequantize=True)).

        Some networks' own initialisation, which its loader calls, reads weights that are not there while packed.
        """
        blocks = copy.deepcopy(self.model.get_submodule(self.blocks)).to("meta")
        for module in blocks.modules():
            if isinstance(module, torch.nn.Linear):
                del module.weight
        try:
            with torch.no_grad():
                blocks.apply(initializer(self.model, self.blocks))
        except AttributeError:
            return True
        return False

    def finds_packed(self, matrix: Matrix) -> bool:
        """Whether transformers renames what is stored beside a matrix as it renames the matrix itself.

        Some of its renamings know a layer by `.weight` only: it would draw the layer's packed weights at random.
        """
        name = f"{self.written(matrix)}.weight"
        own, beside = self.renamed(name), self.renamed(f"{name}_scale")
        return matrix.expert is not None or beside == f"{own}_scale"

    def renamed(self, name: str) -> str:
        """What transformers calls a stored tensor, by its renamings alone."""
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        renamings = [c for c in self.conversions if isinstance(c, WeightRenaming)]
        converters = [c for c in self.conversions if isinstance(c, WeightConverter)]
        found: str = rename_source_key(name, renamings, converters)[0]
        return found

    def is_buffer(self, name: str) -> bool:
        """Whether a stored tensor is no weight, but a table that the network computes (decays, masks)."""
        return _is_buffer(self.model, self.targets[name])

    @cached_property
    def table(self) -> Matrix | None:
        """The input embedding as a matrix; None where there is none, or runtimes would not know it as one."""
        if self.embedding is None or not isinstance(self.model.get_input_embeddings(), torch.nn.Embedding):
            return None
        param = self.targets[self.embedding]
        shared = tuple(other.removesuffix(".weight") for other, source in self._ties.items() if source == param)
        rows, columns = self.checkpoint.entry(self.embedding).shape
        return Matrix(self.embedding, param, rows, columns, None, lookup=True, shared=shared)

    def apart(self, matrix: Matrix) -> bool:
        """Whether a matrix is stored beside the tensor it was read from: a head that shared the embedding's."""
        return matrix.block is None and matrix.param != self.targets[matrix.name]

    def written(self, matrix: Matrix) -> str:
        """The module name under which outputs store a matrix: the source's, but for two.

        A head that leaves the embedding's tensor goes by its own module's; an embedding that the source stores under
        its head's goes by its own, because transformers cannot initialize one without.
        """
        other = self.apart(matrix) or matrix.module in matrix.shared
        return matrix.param.removesuffix(".weight") if other else matrix.module

    @property
    def weights(self) -> int:
        """Numbers in all stored tensors."""
        return sum(entry.count for entry in self.checkpoint.tensors.values())

    @property
    def vocabulary(self) -> int:
        """Tokens that the network tells apart."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one tensor."""
        return self.head is not None and self.head == self.embedding

    def block_of(self, param: str) -> int | None:
        """The decoder block a parameter belongs to, or None."""
        if not param.startswith(self.blocks + "."):
            return None
        number = param[len(self.blocks) + 1 :].split(".", 1)[0]
        return int(number) if number.isdecimal() else None

    def tensors_of(self, block: int | None) -> list[Entry]:
        """The stored tensors that make up one block, or all that belong to none."""
        names = [name for name, param in self.targets.items() if self.block_of(param) == block]
        return [self.checkpoint.tensors[name] for name in names]

    def quantizable(self) -> list[Matrix]:
        """Every matrix of the decoder blocks, in block order: what is quantized unless a recipe says otherwise."""
        inside = [m for m in self.matrices.values() if m.block is not None]
        return sorted(inside, key=lambda m: (m.block or 0, _natural(m.name)))

    def elsewhere(self) -> list[Matrix]:
        """Matrices of linear layers outside the blocks, the head aside: encoders of images or sounds, projections."""
        return [m for m in self.matrices.values() if m.block is None and m.name not in (self.head, self.embedding)]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _name_of(model: Any, module: Any) -> str | None:
    """The parameter name of a module's weight."""
    names = (name for name, m in model.named_modules() if m is module)
    found = next(names, None) if module is not None else None
    return None if found is None else f"{found}.weight"


def _is_buffer(model: Any, name: str) -> bool:
    return name in {key for key, _ in model.named_buffers()}


def load_config(folder: Path) -> Any:
    """The transformers config of `folder`; ModelError where it is absent, unreadable or of an unknown architecture."""
    given = read_config(folder)
    kind = given.get("model_type")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        if folder.is_file():
            config = AutoConfig.for_model(**given)
        else:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (StrictDataclassError, ArithmeticError) as error:
        raise ModelError(
            f"an invalid value ({' '.join(str(error).split())})",
            where=str(folder / "config.json"),
            fix="Use the config.json that belongs to these weights",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise ModelError(
            f"transformers does not know this architecture (model_type {kind!r})",
            where=str(folder / "config.json"),
            fix="Use a decoder that transformers supports without remote code, or update transformers",
            foreign=True,
        ) from error
    if config.is_encoder_decoder:
        raise ModelError(
            f"an encoder-decoder network ({', '.join(config.architectures or [type(config).__name__])}): text alone "
            "runs only one half of it",
            where=str(folder / "config.json"),
            fix="Give a decoder-only language model, or export encoder and decoder to ONNX: each is then a network",
            foreign=True,
        )
    # The network is built in float either way: decoding is ours, not the loader's.
    config.__dict__.pop("quantization_config", None)
    return config


def _require_count(config: Any, checkpoint: Checkpoint) -> None:
    """Raise ModelError for a number of decoder blocks that the tensors cannot be those of: none would be built."""
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if layers is None:
        return
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= len(checkpoint.tensors):
        raise ModelError(
            f"num_hidden_layers is {layers!r}, and the files hold {len(checkpoint.tensors)} tensors",
            where=str(checkpoint.folder / "config.json"),
            fix="Use the config.json that belongs to these weights",
        )


def build(config: Any, dtype: torch.dtype, folder: Path) -> Any:
    """The causal language model of `config` on the meta device, in evaluation mode, with eager experts."""
    config._experts_implementation = "eager"
    try:
        with torch.device("meta"):
            model = network_of(config).from_config(config, dtype=dtype)
    except ValueError as error:
        raise ModelError(
            f"not a decoder language model ({type(config).__name__})",
            where=str(folder),
            fix="Give a causal language model",
        ) from error
    except (ArithmeticError, TypeError, AttributeError, IndexError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"no network can be built from it ({type(error).__name__}: {' '.join(str(error).split())})",
            where=str(folder / "config.json"),
            fix="Use the config.json that belongs to these weights",
        ) from error
    # Attention says whether it looks ahead; networks without attention of this kind say nothing.
    causal = {bool(module.is_causal) for module in model.modules() if hasattr(module, "is_causal")}
    if causal == {False}:
        raise ModelError(
            f"not a decoder language model ({type(config).__name__} looks at later tokens)",
            where=str(folder),
            fix="Give a causal language model",
        )
    model.config.use_cache = False
    return model.eval()


def initializer(model: Any, path: str) -> Any:
    """What gives the module at `path` its first values: that of the nearest whole network around it."""
    while not hasattr(model.get_submodule(path), "_init_weights"):
        path = path.rpartition(".")[0]
    return model.get_submodule(path)._init_weights


def find_blocks(model: Any, folder: Path) -> tuple[str, int]:
    """(path, length) of the decoder's block list: the ModuleList outside any other that holds the most weights.

    One that is as long as the config says the decoder is, or within what transformers takes for the decoder, goes
    before all others: encoders of images may be larger.
    """
    lists: list[tuple[bool, bool, int, str, int]] = []
    inside = set(model.get_decoder().modules())
    layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if (
            isinstance(module, torch.nn.ModuleList)
            and len(module)
            and not any(name.startswith(p + ".") for *_, p, _ in lists)
        ):
            size = sum(p.numel() for p in module.parameters())
            lists.append((len(module) == layers, module in inside, size, name, len(module)))
    if not lists:
        raise ModelError("no list of decoder blocks found", where=str(folder), fix="Give a decoder language model")
    *_, path, count = max(lists)
    return path, count
