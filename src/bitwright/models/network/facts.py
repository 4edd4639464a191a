"""What a certificate of an ONNX network says, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitwright.models.kind import Fact
from bitwright.words import kl_text, level, lowest_output, measured, number, plural, signed, some

Verdict = Mapping[str, Any]


def measures(v: Verdict) -> list[Fact]:
    """Scores (KL, agreement, accuracy), words, boxes, and the SQNR of the outputs, as far as they were measured."""
    found = []
    if "kl" in v:
        row, rows = row_name(v), plural(v["rows"], row_name(v))
        found.append(Fact("Mean KL", "", kl_text(v), f"per {row}, over {rows}", "error"))
    if "top1_float" in v:
        found.append(_accuracy(v, 1))
    if "wer_float" in v:
        spread = measured(100 * number(v["wer_increase"]), 100 * number(v["wer_increase_interval"]))
        change = f"{signed(spread)} points, over {plural(v['words'], 'word')}"
        found.append(Fact("Word errors", *_pair(v, "wer"), change, "quant"))
    if "cosine" in v:
        mean, half, worst = (number(v[f"cosine{key}"]) for key in ("", "_interval", "_worst"))
        width = f"{half:.1g}" if math.isfinite(half) else "∞"
        told = f"± {width} over {plural(v['embeddings'], 'embedding')}, {worst:.4f} at worst"
        found.append(Fact("Mean cosine", "", f"{mean:.5f}" if math.isfinite(mean) else "not finite", told, "error"))
    if "match_float" in v:
        spread = measured(100 * number(v["match_change"]), 100 * number(v["match_change_interval"]))
        counts = f"{v['match_gained']:,} gained, {v['match_lost']:,} lost of {plural(v['pairs'], 'pair')}"
        told = f"{signed(spread)} points, {counts}"
        found.append(Fact("Accuracy of verification", *_pair(v, "match"), told, "quant"))
    if "map_float" in v:
        change = f"{points(v, 'map')}, over {plural(v['images'], 'image')}"
        found.append(Fact("mAP", *_pair(v, "map"), change, "quant"))
    if "boxes_same" in v:
        detail = f"{v['boxes_same']:,} the same, of {v['boxes_float']:,} and {v['boxes_quantized']:,} sure ones"
        found.append(Fact("Boxes that agree", "", f"{100 * number(v['boxes_agreement']):.2f} %", detail))
    if "kl" in v:
        low, high = 100 * number(v["top1_agreement_low"]), 100 * number(v["top1_agreement_high"])
        detail = f"of {rows} have the same best class (95 % interval {low:.2f} to {high:.2f} %)"
        found.append(Fact("Top-1 agreement", "", f"{100 * number(v['top1_agreement']):.2f} %", detail))
    name, value = lowest_output(v["sqnr_db"])
    where = f"in {name}" if len(v["sqnr_db"]) == 1 else f"in {name}, the lowest of {len(v['sqnr_db'])} outputs"
    found.append(Fact("Output SQNR", "", level(value), where, "error"))
    if "top5_float" in v:
        found.append(_accuracy(v, 5))
    if "cer_float" in v:
        same = f"the same text on {v['same']:,} of {plural(v['clips'], 'clip')}"
        found.append(Fact("Character errors", *_pair(v, "cer"), same, "quant"))
    if "eer_float" in v:
        kept = f"{100 * number(v['match_kept_threshold']):.2f} %"
        found.append(Fact("EER (equal error rate)", *_pair(v, "eer"), points(v, "eer"), "quant"))
        found.append(Fact("At the old threshold", "", kept, "of the pairs right, with the float network's threshold"))
    if "tar_float" in v:
        told = f"{points(v, 'tar')}; true acceptances where 1 % are false"
        found.append(Fact("TAR at 1 % FAR", *_pair(v, "tar"), told, "quant"))
    if "ap50_float" in v:
        found += [Fact(f"AP {n}", *_pair(v, f"ap{n}"), points(v, f"ap{n}"), "quant") for n in (50, 75)]
    return found


def baseless(v: Verdict) -> str | None:
    """Outputs that are 0 on all samples, or embeddings that tell pairs apart no better than guessing."""
    if v.get("silent", False):  # absent in earlier certificates
        return f"{some(v['sqnr_db'], 3)} is 0 on every sample"
    if "match_float" not in v or number(v["match_float_low"]) > 0.5:
        return None
    return f"it tells {100 * number(v['match_float']):.1f} % of the pairs apart, where guessing tells half"


def row_name(verdict: Verdict) -> str:
    """What KL is a mean over: a `sample`, or a `frame` where a sample has several rows of scores."""
    return "sample" if verdict["rows"] == verdict["samples"] else "frame"


def _accuracy(v: Verdict, top: int) -> Fact:
    name = f"top{top}"
    change = measured(100 * number(v[f"{name}_change"]), 100 * number(v[f"{name}_change_interval"]))
    counts = f"{v[f'{name}_gained']:,} gained, {v[f'{name}_lost']:,} lost of {v['labelled']:,}"
    word = "Accuracy" if top == 1 else f"Top-{top} accuracy"
    return Fact(word, *_pair(v, name), f"{signed(change)} points, {counts}", "quant")


def _pair(verdict: Verdict, name: str) -> tuple[str, str]:
    """A share of the float network and the other, in percent."""
    before, after = (100 * number(verdict[f"{name}_{which}"]) for which in ("float", "quantized"))
    if math.isfinite(before + after):
        return f"{before:.2f}", f"{after:.2f} %"
    return "not finite", "not finite"


def points(verdict: Verdict, name: str) -> str:
    """The change of a share, in percentage points."""
    change = 100 * number(verdict[f"{name}_change"])
    return f"{change:+.2f} points" if math.isfinite(change) else "not finite"


def activations(certificate: Verdict) -> str:
    """How tensors between layers are rounded: `uint8 activations`; "" where they are not."""
    if not certificate.get("activations"):
        return ""
    network = certificate["recipe"]["network"]
    return f"{'u' if network['target'] == 'x86' else ''}{network['activations']} activations"


def readers(certificate: Verdict) -> list[str]:
    """Whose code read the written bytes back, and what came of it."""
    versions, simulated = certificate["decoder"], certificate["simulation"]
    lines = [f"Accepted by onnx {versions['onnx']}; every weight decodes to what was meant, bit for bit"]
    runtime = f"ONNX Runtime {versions['onnxruntime']}"
    if not simulated:
        return [*lines, f"Not run by {runtime}: there were no samples"]
    found = [f"{level(part['sqnr_db'])} ({name})" for name, part in simulated.items()]
    return [*lines, f"{runtime} answers as our own simulation does: SQNR {some(found, 3)}"]


def describe(part: Verdict) -> list[str]:
    """What samples were made of, and how they were prepared."""
    labelled = "labelled" if part["labelled"] else "without labels"
    lines = [f"{part['samples']:,} of {part['available']:,} samples ({part['kind']}), {labelled}"]
    if part["per_class"]:
        low, high = min(part["per_class"].values()), max(part["per_class"].values())
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        lines.append(f"{plural(len(part['per_class']), 'class', 'classes')}, {each} samples each")
    elif part["classes"]:
        lines.append(plural(len(part["classes"]), "class", "classes"))
    if pairs := part.get("pairs"):
        whence = f"of {pairs['file']}" if pairs["file"] else f"drawn by seed {part['seed']}"
        among = f" among {plural(part['identities'], 'identity', 'identities')}" if "identities" in part else ""
        lines.append(f"{pairs['same']:,} pairs of one identity and {pairs['different']:,} of two{among}, {whence}")
    order = f"spread over the classes, seed {part['seed']}" if part["order"] == "spread" else "in the order given"
    lines.append(f"chosen {order}; {part['batch']:,} at once")
    for what, settings in part["preprocessing"].items():
        told = [f"{key} {_setting(value)}" for key, value in settings.items() if value not in (None, False, [], "none")]
        lines.append(f"{what}: {', '.join(told)}")
    return lines


def _setting(value: object) -> str:
    """`0.5`, `0.5 0.5 0.5`, `bilinear`."""
    if isinstance(value, list):
        return " ".join(map(_setting, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
