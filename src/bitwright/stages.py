"""What decides the bytes of a stage's output: settings of what makes a float model of a float model.

They are tables as a recipe has them, as strict, and with its words for text.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from bitwright.recipe import Calibration, Table, explain


class Settings(Table):
    """What all stages are told."""

    stage: ClassVar[str]
    """The stage's name, which is also the command's."""

    calibration: Calibration = Calibration()
    """The text that it learns from, and that for the verdict."""
    copy_code: bool = False
    """Copy code that lies beside the model (`*.py`) into the output: whoever trusts it there runs it."""
    max_shard_bytes: int | None = Field(None, ge=1_000_000)
    """Bytes of a weight file, at most: a larger output is written as shards. None: 5 GB."""

    @classmethod
    def read(cls, raw: dict[str, Any], where: str) -> Self:
        """Settings from plain tables; RecipeError names `where` and the key."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise explain(error, where, cls) from error

    @property
    def hash(self) -> str:
        """SHA-256 of the stage's name and the canonical JSON form."""
        text = json.dumps([self.stage, self.model_dump(mode="json")], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


Part = Literal["width", "heads", "layers"]


def _parted(value: Any) -> Any:
    """Words between commas, each once, in the order in which they are known."""
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not set(words) <= set(get_args(Part)):
        return words
    return [part for part in get_args(Part) if part in words]


class Prune(Settings):
    """Whole channels, heads and layers of a language model are taken out; what remains makes up for them."""

    stage = "prune"

    keep: float | None = Field(None, gt=0, lt=1)
    """The share of the decoder blocks' parameters that is kept, at most."""
    params: int | None = Field(None, gt=0)
    """Parameters of the whole output, at most, instead of `keep`."""
    cut: Annotated[tuple[Part, ...], Field(min_length=1), BeforeValidator(_parted)] = ("width", "heads")
    """What may be taken out: channels of the MLP, groups of attention heads that share keys and values, whole layers.
    """
    multiple: Literal[32, 64, 128, 256] = 64
    """The width of the MLP stays a multiple of this, so that groups of so many weights fit; GGUF's K types want 256."""
    importance: Literal["elimination", "taylor", "activation"] = "elimination"
    """What goes first: that which costs the output least once the others have made up for it; that by whose own loss it
    changes least (Taylor); or the smallest activations (Minitron)."""
    repair: bool = True
    """Fit the remaining weights, by least squares, to what the float layers answer."""

    @model_validator(mode="after")
    def _one(self) -> Prune:
        given = [key for key in ("keep", "params") if getattr(self, key) is not None]
        if len(given) != 1:
            fix = "Give one of keep and params (--keep 0.8, --params 100M)"
            raise PydanticCustomError("unknown", "{count} targets", {"count": len(given), "fix": fix})
        return self


class Distil(Settings):
    """A language model, the student, learns from another what comes next: its teacher."""

    stage = "distil"

    teacher: str
    """The model that teaches: a folder, a GGUF file or `hub:OWNER/NAME@REVISION`; float or quantized."""
    tokens: int = Field(1_000_000, ge=1)
    """Tokens to learn from. Where the text has fewer, it is gone through again, in another order."""
    batch: int = Field(8, ge=1)
    """Windows a step."""
    rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """The highest rate of AdamW."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """The share of the steps in which the rate rises; then it falls along half a cosine."""
    loss: Literal["forward", "reverse", "jensen-shannon"] = "forward"
    """KL of the student from the teacher, of the teacher from the student, or of both from their mean."""
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """By which logits are divided before they are compared."""
    labels: float = Field(0.0, ge=0, le=1)
    """The share of the loss that is the text's own next tokens."""
    hidden: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of the error of the last hidden states, behind a linear map that is learned too."""
    exact: bool = False
    """Keep all that the teacher says, not 12 words drawn at each position. Other losses than `forward` need it."""
    cache: str | None = Field(None, min_length=1)
    """A file that keeps what the teacher says, for other runs too. None: beside the unfinished output, until it is
    done."""
    patience: int = Field(0, ge=0)
    """End after so many looks in a row, of 20, that are no better than the best one. 0: go on to the end."""
    mixed: bool = False
    """Multiply in bfloat16 while learning."""

    @model_validator(mode="after")
    def _whole(self) -> Distil:
        whole = self.hidden > 0 or (self.loss != "forward" and self.labels < 1)
        if whole and not self.exact:
            fix = "Give --exact, or --loss forward without --hidden"
            raise PydanticCustomError("unknown", "drawn words do not say enough for this loss", {"fix": fix})
        return self


STAGES: dict[str, type[Settings]] = {table.stage: table for table in (Prune, Distil)}
"""The stages, by name."""
