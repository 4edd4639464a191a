"""Independent judge: compare a quantized model with its float original on held-out windows.

Uses only torch and transformers (none of Bitwright's code). The quantized model is a
`dequantized.safetensors` of float weights to swap into the original, a folder that
transformers can load, or a GGUF file of the original's architecture. Prints JSON: the mean
KL(float || quantized) in nats per token and the share of tokens that both rank first, with
standard errors over windows, the KL that one token of a thousand exceeds, and both
perplexities; of further texts the same, in lists whose names end in `_elsewhere`.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from windows import token_windows

LOGITS = 1 << 26
"""Logits that one batch of windows may have."""


def load_float(folder):
    """Load a model of the Hugging Face layout in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_quantized(model, candidate):
    """Load the candidate: dequantized weights swapped into the original, a model folder of its own, or a GGUF file."""
    candidate = Path(candidate)
    if candidate.suffix == ".gguf":
        return load_gguf(model, candidate)
    weights = candidate / "dequantized.safetensors" if candidate.is_dir() else candidate
    if not weights.exists():
        return load_float(candidate)
    quantized = load_float(model)
    parameters = dict(quantized.named_parameters())
    for name, weight in load_file(weights).items():
        if parameters[name].shape != weight.shape or not weight.isfinite().all():
            raise ValueError(f"{name}: wrong shape or values that are not finite")
        parameters[name].data.copy_(weight)
    return quantized


def load_gguf(model, file):
    """Load the weights of a GGUF file into the original's architecture; every one of them must be there."""
    config = AutoConfig.from_pretrained(model)
    loaded, told = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=torch.float32, output_loading_info=True
    )
    if any(told.values()):
        raise ValueError(f"{file}: {told}")
    return loaded.eval()


def compare(reference, quantized, windows, batch):
    """Return the figures of the comparison, holding the logits of one batch of windows at a time."""
    divergences, losses, agreed = [], torch.zeros(2, dtype=torch.float64), []
    for rows in windows.split(batch):
        targets = rows[:, 1:, None]
        p = reference(rows).logits.log_softmax(-1)
        q = quantized(rows).logits.log_softmax(-1)
        agreed.append((p.argmax(-1) == q.argmax(-1)).double().mean(-1))
        for which, logs in enumerate((p, q)):
            losses[which] -= logs[:, :-1].gather(-1, targets).double().sum()
        divergences.append((p.exp() * (p - q)).sum(-1).double())
    tokens, same = torch.cat(divergences), torch.cat(agreed)
    each = tokens.mean(-1)
    perplexities = (losses / windows[:, 1:].numel()).exp()
    return {
        "kl": each.mean().item(),
        "kl_se": (each.std() / len(each) ** 0.5).item(),
        "kl_999": tokens.quantile(0.999).item(),
        "perplexity_float": perplexities[0].item(),
        "perplexity": perplexities[1].item(),
        "top1": same.mean().item(),
        "top1_se": (same.std() / len(same) ** 0.5).item(),
        "windows": len(windows),
        "length": windows.shape[1],
    }


def main():
    """Judge one candidate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="float model directory")
    parser.add_argument("--candidate", required=True, help="dequantized.safetensors, or a folder")
    parser.add_argument("--heldout", required=True, nargs="+", help="held-out texts, those in domain first")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reference, quantized = load_float(args.model), load_quantized(args.model, args.candidate)
    batch = max(1, min(4, LOGITS // (args.length * reference.config.get_text_config().vocab_size)))
    texts = [token_windows(args.model, path, args.windows, args.length) for path in args.heldout]
    with torch.inference_mode():
        first, *others = [compare(reference, quantized, windows, batch) for windows in texts]
    print(json.dumps(first | {f"{name}_elsewhere": [found[name] for found in others] for name in first}))


if __name__ == "__main__":
    main()
