"""The model card of an output: what the hub's pages and search read of it, and what people do, from its certificate.

The metadata are those of https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import hashlib
import re
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
)
from bitwright.engine.report.certificate import scheme as scheme_of
from bitwright.engine.report.certificate import words as words_of
from bitwright.engine.report.judgement import cautions, headline
from bitwright.engine.report.measures import measures
from bitwright.engine.report.text import cell, table
from bitwright.files import hub, sidecars
from bitwright.files.folder import read_config
from bitwright.files.plain import read, why
from bitwright.models.model import Plan

KEPT = ("license", "license_name", "license_link", "language", "datasets", "pipeline_tag")
"""Metadata of the source that hold for its copy too; figures (`model-index`) do not."""


class Source(NamedTuple):
    """The card of a source: its metadata, its text, and what is wrong with it."""

    metadata: dict[str, Any]
    text: str
    fault: str = ""


def of(plan: Plan, certificate: Certificate, written: str) -> str:
    """The card of a finished plan; `written` is the certificate as its file has it.

    Another run of the same plan gives the same card, but for the certificate's hash: times are left out.
    """
    from huggingface_hub import ModelCard, ModelCardData

    certificate = {key: value for key, value in certificate.items() if key != "speed"}
    source = read_source(plan.model.kind.source_card(plan.source))
    base, named = base_model(plan.source, source.metadata)
    kind, about = plan.model.kind, source.metadata
    loads = plan.model.runtimes(plan)
    single = kind.ending or plan.container.ending
    here = plan.model.written(plan).name if single else "."  # a file by its name; a folder from within
    known = {key: value for key in KEPT if (value := plain(about.get(key)))}
    tags = [tag for tag in _list(plain(about.get("tags"))) if tag != "quantized"]
    metadata = ModelCardData(
        base_model=base,
        base_model_relation="quantized",
        library_name=kind.library,
        tags=[*tags, "quantized", plan.container.name, "bitwright"],
        quantized_by="Bitwright",
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
        runtimes=[cell(line) for line in loads],
        usage=_usage(plan, loads, here),
        papers=[path.name for path in sidecars.papers(plan.source)],
        license=known.get("license"),
        certificate=certificate_path(plan.out).name,
        digest=hashlib.sha256(written.encode()).hexdigest(),
        here=here,
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
    lines = [f"{scheme_of(certificate)}: {bits:.3f} stored bits per weight, over {weights:,} weights"]
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


def _usage(plan: Plan, loads: list[str], here: str) -> list[tuple[str, str, str]]:
    """(runtime, language, program) for each runtime that the container promises."""
    known = plan.container.usage(here, plan.unpacks)
    promised = [line for line in loads if not line.startswith("not ")]
    return [(name, *told) for name, told in known.items() if any(re.search(rf"\b{name}\b", p) for p in promised)]
