"""The model card of an output: what the hub's pages and search read of it, and what people do, from its certificate.

The metadata are those of https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from bitwright import words
from bitwright.engine.report.certificate import (
    Certificate,
    certificate_path,
    data,
    fallbacks,
    floats,
    lint,
    saved,
    short_scheme,
    stages,
)
from bitwright.engine.report.certificate import scheme as scheme_of
from bitwright.engine.report.certificate import words as words_of
from bitwright.engine.report.judgement import cautions, headline
from bitwright.engine.report.measures import measures
from bitwright.engine.report.text import cell, table
from bitwright.files import hub, sidecars
from bitwright.files.folder import read_config
from bitwright.files.plain import read, why
from bitwright.models.kind import Kind
from bitwright.models.model import Plan
from bitwright.models.stage import Stage

KEPT = ("license", "license_name", "license_link", "language", "datasets", "pipeline_tag")
"""Metadata of the source that hold for its copy too; figures (`model-index`) do not."""


class Source(NamedTuple):
    """The card of a source: its metadata, its text, and what is wrong with it."""

    metadata: dict[str, Any]
    text: str
    fault: str = ""


class Made(NamedTuple):
    """What a card is of: an output in a repository of its own, where `here` is what it is called.

    `tags` say how it was made, `relation` what it is to its source, in the hub's words, and `by` whatever else does;
    `loads` are the runtimes that load it, `usage` the programs for some of them.
    """

    kind: Kind
    source: Path
    out: Path
    here: str
    tags: tuple[str, ...]
    relation: str
    by: Mapping[str, str]
    loads: list[str]
    usage: Mapping[str, tuple[str, str]]


def of(plan: Plan, certificate: Certificate, written: str) -> str:
    """The card of a finished plan; `written` is the certificate as its file has it.

    Another run of the same plan gives the same card, but for the certificate's hash: times are left out.
    """
    single = plan.kind.ending or plan.container.ending
    here = plan.model.written(plan).name if single else "."  # a file by its name; a folder from within
    made = Made(
        plan.kind, plan.source, plan.out, here, ("quantized", plan.container.name), "quantized",
        {"quantized_by": "Bitwright"}, plan.model.runtimes(plan), plan.container.usage(here, plan.unpacks),
    )  # fmt: skip
    return _card(made, {key: value for key, value in certificate.items() if key != "speed"}, written)


def of_stage(stage: Stage, certificate: Certificate, written: str) -> str:
    """The card of a finished stage; see `of`. To the hub whatever has weights of its own is a finetuned model."""
    made = Made(
        stage.kind, stage.source, stage.out, ".", (stage.name,), "finetune", {}, stage.runtimes(), stage.usage()
    )
    return _card(made, certificate, written)


def _card(made: Made, certificate: Certificate, written: str) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    kind = made.kind
    source = read_source(kind.source_card(made.source))
    base, named = base_model(made.source, source.metadata)
    known = {key: value for key in KEPT if (value := plain(source.metadata.get(key)))}
    tags = [tag for tag in _list(plain(source.metadata.get("tags"))) if tag not in made.tags]
    metadata = ModelCardData(
        base_model=base,
        base_model_relation=made.relation,
        library_name=kind.library,
        tags=[*tags, *made.tags, "bitwright"],
        **made.by,
        **{"pipeline_tag": kind.pipeline or None, **known},
    )
    template = resources.files("bitwright.engine").joinpath("card.md.j2").read_text("utf-8")
    card = ModelCard.from_template(
        metadata,
        template_str=template,
        title=cell(f"{certificate['source']['folder'].removesuffix(kind.ending)}, {short_scheme(certificate)}"),
        source_name=cell(certificate["source"]["folder"]),
        base=base,
        named=named,
        version=certificate["bitwright"],
        headline=cell(headline(certificate)),
        cautions=[cell(line) for line in cautions(certificate)],
        remedy=None if certificate["verdict"] else words_of(certificate).remedy,
        done=[cell(line) for line in _done(certificate)],
        figures=_figures(certificate),
        runtimes=[cell(line) for line in made.loads],
        usage=_usage(made),
        papers=[path.name for path in sidecars.papers(made.source)],
        license=known.get("license"),
        certificate=certificate_path(made.out).name,
        digest=hashlib.sha256(written.encode()).hexdigest(),
        here=made.here,
        fault=cell(source.fault),
        kept=source.text.strip(),
    )
    return str(card).rstrip() + "\n"


def read_source(path: Path) -> Source:
    """The card at `path`; one that is not there, or whose metadata cannot be read, has none."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

    if not path.is_file():
        return Source({}, "")
    try:
        text = read(path).decode("utf-8-sig", "replace")
    except OSError as error:
        return Source({}, "", f"The card of the source cannot be read ({why(error)}).")
    found = REGEX_YAML_BLOCK.match(text)
    if found is None:
        return Source({}, text)
    try:
        metadata = safe_load(found[2])
    except (YAMLError, ValueError, RecursionError):
        return Source({}, text[found.end() :], "The metadata of the source's card are not YAML, and were left out.")
    return Source(metadata if isinstance(metadata, dict) else {}, text[found.end() :])


def plain(value: Any) -> str | list[str] | None:
    """A word or a list of words of a card's metadata; None for anything else. YAML reads Norwegian, `no`, as False."""
    if isinstance(value, list):
        return [word for item in value if isinstance(word := plain(item), str)] or None
    if value is False:
        return "no"
    return str(value) if isinstance(value, str | int | float) else None


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def base_model(path: Path, metadata: dict[str, Any]) -> tuple[str | list[str] | None, str]:
    """What the model at `path` is called on the hub, and who says so; None where nobody does: it is never guessed."""
    if found := hub.origin(path):
        return found.repo, f"It was downloaded from there, commit `{found.commit}`."
    if (named := plain(metadata.get("base_model"))) is not None:
        return named, "The source's own card names it."
    if path.is_dir():
        name = read_config(path).get("_name_or_path")
        if isinstance(name, str) and hub.REPOSITORY.fullmatch(name):
            return name, "The source's config.json names it."
    return None, ""


def _done(certificate: Certificate) -> list[str]:
    """What was done, a line each."""
    weights, bits = certificate["quantized_weights"], certificate["stored_bits_per_weight"]
    lines = [line for stage in stages(certificate) for line in (stage["words"], *stage["lines"])]
    if certificate["rows"]:
        lines.append(f"{scheme_of(certificate)}: {bits:.3f} stored bits per weight, over {weights:,} weights")
    lines += [f"{len(names):,} stay float: {reason} ({words.some(names, 3)})" for reason, names in floats(certificate)]
    for name, part in data(certificate).items():
        called = f"{'calibration' if name == 'calibration' else 'held-out'} {words_of(certificate).data}"
        name = part["source"] if "sources" in part else _called(part["source"])  # a mixture is named by its sources
        lines.append(f"{called}, {name}: {'; '.join(lint(certificate, part))}")
    if not data(certificate):
        lines.append("no calibration: nothing but the weights was looked at")
    return [*lines, *fallbacks(certificate)]


def _called(source: str) -> str:
    """Data by name: where they lie on the machine that read them is of no use elsewhere."""
    return source if source.startswith(hub.PREFIX) else Path(source).name


def _figures(certificate: Certificate) -> str:
    """The verdict's table, intervals included, with the sizes."""
    before, after = (words.megabytes(certificate[part]["bytes"]) for part in ("source", "output"))
    rows = [(fact.label, fact.before, fact.value, fact.detail) for fact in measures(certificate)]
    rows += [("Weights", before, after, saved(certificate))]
    return table(("Measure", "Float", "This model", "95 % interval, and of what"), rows)


def _usage(made: Made) -> list[tuple[str, str, str]]:
    """(runtime, language, program) for each runtime that is promised."""
    promised = [line for line in made.loads if not line.startswith("not ")]
    return [(name, *told) for name, told in made.usage.items() if any(re.search(rf"\b{name}\b", p) for p in promised)]
