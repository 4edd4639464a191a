"""Every language family of the installed transformers as a tiny random model, quantized: the table of docs/families.md.

    python bench/families.py [FAMILY ...] [--write docs/families.md]

A family is a `model_type` that transformers has a network for: causal language models first, then sequence-to-sequence,
speech and image-text models. Each gets a few small layers of every kind that its configuration knows (families.toml
says how), is saved as a folder, and is quantized to 4 bits by rtn and by the default method, as a user would. What is
no error of the house is a fault, and makes the exit status 1.
"""

import argparse
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from copy import deepcopy
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto import modeling_auto

import bitwright as bw
from bitwright.errors import BitwrightError

HERE = Path(__file__).parent
DEMO = HERE.parent / "src" / "bitwright" / "content" / "demo-model"
DATA = tomllib.loads((HERE / "families.toml").read_text())
SIZE = {field: row["size"] for row in DATA["sizes"] for field in row["fields"].split()}
COUNTS = DATA["layers"]["fields"].split()
LAYERS = 4
LARGEST = 20_000_000
"""Parameters of a tiny model, at most: else its family wants a line in families.toml."""
OPTIONS = {
    "rtn": {"method": "rtn"},
    "default": {"calib": str(HERE / "quality.py"), "windows": 4, "length": 32, "heldout_windows": 2},
}
MARK = "<!-- written by bench/families.py -->"
KINDS = (
    ("Causal language models", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    ("Sequence to sequence", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    ("Speech to text", modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
    ("Images and text", modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
)


def shrink(kind, **more):
    """A small configuration of a class: known fields get their sizes, lists by layer keep each kind of layer."""
    try:
        base = kind()
    except (ValueError, StrictDataclassError):  # its own defaults contradict each other
        base = kind(**more)
    facts = {key: value for key, value in vars(base).items() if not key.startswith("_")}
    layers = max((facts[key] for key in COUNTS if isinstance(facts.get(key), int)), default=0)
    values = {}
    for key, value in facts.items():
        if isinstance(value, transformers.PretrainedConfig):
            values[key] = shrink(type(value), **more.pop(key, {})).to_dict()
        elif isinstance(value, list) and len(value) == layers:
            values[key] = [SIZE[key]] * LAYERS if key in SIZE else some(value)
        elif key in COUNTS and value:
            values[key] = LAYERS
        elif key in SIZE and not isinstance(value, (list, dict)) and (value is not None or key in DATA["derived"]):
            values[key] = SIZE[key]
    if facts.get("kv_lora_rank"):  # latent attention: keys and values have a head for each of the queries'
        values["num_key_value_heads"] = values["num_attention_heads"]
    return kind(**values | more)


def some(values):
    """LAYERS of a list's values, in order: one of each kind first."""
    first = [i for i, value in enumerate(values) if value not in values[:i]][:LAYERS]
    rest = [i for i in range(len(values)) if i not in first]
    return [values[i] for i in sorted(first + rest[: LAYERS - len(first)])]


def make(family, classes, folder):
    """Save a random model of a family, with weights that give logits of ordinary size."""
    kind, more = transformers.CONFIG_MAPPING[family], deepcopy(DATA["families"].get(family, {}))
    if classes is KINDS[0][1] and hasattr(kind, "is_decoder"):
        more["is_decoder"] = True
    config = shrink(kind, **more)
    name = classes[family]
    network = getattr(transformers, name[0] if isinstance(name, tuple) else name)
    inner = [key for key, kind in config.sub_configs.items() if kind is network.config_class]
    if inner and type(config) is not network.config_class:
        config = getattr(config, inner[0])
    with torch.device("meta"):
        size = sum(p.numel() for p in network(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} M parameters are not tiny")
    torch.manual_seed(0)
    model = network(config).float().eval()
    with torch.no_grad():
        for module in model.modules():
            for key, p in module.named_parameters(recurse=False):
                if isinstance(module, torch.nn.Embedding):
                    p.normal_()
                elif p.dim() > 1 and (key.endswith("weight") or "proj" in key):
                    p.normal_(0, p[0].numel() ** -0.5 if p.dim() == 2 else p.shape[-1] ** -0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0  # as in trained models; some networks zero it while loading
    model.to(torch.bfloat16).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, folder / file)


def quantize(folder, out, options):
    """Quantize as a user would: the certificate, or the error; where neither comes, what came instead is a fault."""
    try:
        found = bw.quantize(folder, out, bits=4, watch=False, **options).certificate
    except BitwrightError as error:
        return str(error) if "report this" in str(error) else error
    except Exception as error:  # a traceback is what is looked for
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"
    return found


def look(family, classes):
    """The outcome for one family: its heading, and what there is to say."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        try:
            make(family, classes, work / "model")
        except Exception as error:  # whatever transformers has against its own defaults
            return "Not tried", line(f"no tiny model: {error}", work)
        rtn, default = (quantize(work / "model", work / how, OPTIONS[how]) for how in OPTIONS)
        if faults := [line(found, work) for found in (rtn, default) if isinstance(found, str)]:
            return "Fault", faults[0]
        if isinstance(rtn, BitwrightError):
            why = line((rtn if isinstance(default, dict) else default).what, work)
            studied = quantize(work / "model", work / "study", {**OPTIONS["default"], "simulate": True})
            if isinstance(studied, str):
                return "Fault", line(studied, work)
            return ("Refused" if isinstance(studied, BitwrightError) else "Study copies only (`--simulate`)"), why
        if isinstance(default, BitwrightError):
            return "By rtn without text only", line(default.what, work)
        loaded, kept = default["loaded_by_transformers"], [n for n in default["notes"] if "float" in n or "kept" in n]
        if kept or default["kept_float"]:
            return "Works, and more than embedding, norms and head stays float", line("; ".join(kept), work)
        if not loaded["checked"]:
            return "Works, not loaded by transformers", line(loaded["why"], work)
        return "Works, unpacked on loading" if loaded.get("dequantize") else "Works", ""


def line(text, work):
    """A text as a table's cell."""
    return " ".join(str(text).replace(f"{work}/", "").replace("|", "/").split())[:240]


PLAIN = {
    "Works": "rtn and the default; transformers loads the folder packed and answers alike",
    "Works, unpacked on loading": "the same with `CompressedTensorsConfig(dequantize=True)`: experts are fused, or the "
    "network's own initialisation cannot do without unpacked weights",
}


def table(title, found):
    """A kind's section: what works in lists, all else in tables of families and reasons."""
    yield f"\n## {title}\n"
    for heading in sorted({heading for heading, _ in found.values()}, key=lambda h: (h not in PLAIN, h)):
        rows = {family: why for family, (kind, why) in found.items() if kind == heading}
        if heading in PLAIN:
            yield f"**{heading}** ({len(rows)}; {PLAIN[heading]}): {', '.join(f'`{family}`' for family in rows)}.\n"
            continue
        by_why = {}
        for family, why in rows.items():
            by_why.setdefault(why, []).append(f"`{family}`")
        yield f"**{heading}** ({len(rows)}):\n\n| family | why |\n|---|---|"
        yield from (f"| {', '.join(families)} | {why} |" for why, families in by_why.items())
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="families to try (all unless given)")
    parser.add_argument("--write", type=Path, help="the page whose table to write, after the line that says so")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    lines, faults = [], 0
    for title, classes in KINDS:
        found = {}
        for family in classes:
            if not asked.families or family in asked.families:
                start = time.monotonic()
                found[family] = look(family, classes)
                faults += found[family][0] == "Fault"
                print(f"{family}: {': '.join(found[family])} ({time.monotonic() - start:.1f} s)", flush=True)
        lines += table(title, found) if found else []
    if asked.write:
        page = asked.write.read_text().partition(MARK)[0]
        asked.write.write_text("\n".join([f"{page}{MARK}", *lines]).rstrip() + "\n")
    sys.exit(min(faults, 1))


if __name__ == "__main__":
    main()
