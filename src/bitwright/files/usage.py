"""Short programs that load an output, as its model card shows them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping


def in_transformers(name: str, options: Mapping[str, str] | None = None) -> str:
    """Python that loads a folder as a causal language model; `options` are further arguments, as Python text."""
    told = "".join(f", {key}={value}" for key, value in {"dtype": '"auto"', **(options or {})}.items())
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(name)}{told})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(name)})"
    )


def in_vllm(name: str) -> tuple[str, str]:
    """Language and command that serve a folder."""
    return "sh", f"vllm serve {shlex.quote(name)}"


def in_onnxruntime(name: str) -> tuple[str, str]:
    """Language and program that load a network and say what it takes."""
    return "python", (
        "import onnxruntime\n\n"
        f"session = onnxruntime.InferenceSession({json.dumps(name)})\n"
        "print({given.name: (given.type, given.shape) for given in session.get_inputs()})"
    )
