"""Certificates as one self-contained HTML page."""

from __future__ import annotations

from importlib import resources

import jinja2

from bitwright.engine.report.certificate import (
    Certificate,
    corrections,
    data,
    decibel,
    fallbacks,
    floats,
    input_levels,
    kind,
    label,
    leaves_out_activations,
    lint,
    module,
    proofs,
    readers,
    remarks,
    rounds_inputs,
    runtimes,
    scheme,
    short_scheme,
    stages,
    weight_entropy,
    weight_levels,
    words,
)
from bitwright.engine.report.figures import bars, disagreement, histogram, pictures, scatter
from bitwright.engine.report.judgement import (
    JUDGEMENTS,
    SCALES,
    cautions,
    comparability,
    judge,
    loss,
    ranking,
    source,
    summary,
    unjudged,
)
from bitwright.engine.report.measures import facts, measures
from bitwright.engine.report.spending import frontier, spending
from bitwright.words import megabytes, milliseconds, plural, share, some

FUNCTIONS = (
    *(
        bars,
        cautions,
        corrections,
        data,
        decibel,
        disagreement,
        facts,
        fallbacks,
        floats,
        histogram,
        judge,
        kind,
        label,
        lint,
    ),
    *(measures, megabytes, milliseconds, module, plural, proofs, readers, remarks, leaves_out_activations, unjudged),
    *(pictures, runtimes, scheme, share, short_scheme, some, source, words),
    *(frontier, spending, stages),
    *(input_levels, rounds_inputs, weight_entropy, weight_levels),
)
"""What the template calls."""


def to_html(certificates: list[Certificate]) -> str:
    """One page that needs nothing else: styles and drawings inside, no script, no request to anywhere."""
    source = resources.files("bitwright.engine.report").joinpath("report.html.j2").read_text("utf-8")
    loader = jinja2.DictLoader({"report": source})
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    head, rows = summary(certificates)
    used = dict.fromkeys(name for name, _ in filter(None, map(loss, certificates))) or {"kl": None}
    return environment.get_template("report").render(
        certificates=certificates,
        several=len(certificates) > 1,
        judgements=JUDGEMENTS,
        scales=[SCALES[name] for name in used],
        ranking=ranking(certificates),
        warnings=comparability(certificates),
        scatter=scatter(certificates),
        head=head,
        summaries=rows,
        **{f.__name__: f for f in FUNCTIONS},
    )
