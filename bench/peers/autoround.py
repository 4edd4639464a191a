"""Peer: AutoRound, which trains roundings and ranges block by block with signed gradient descent."""

from importlib.metadata import version

import torch
from auto_round import AutoRound
from common import Result, arguments, calibration
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 8


def collate(rows):
    """Make a model input of some windows."""
    ids = torch.stack(rows)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main():
    """Quantize the model and write the result."""
    args = arguments()
    windows = calibration(args)
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)),
        AutoTokenizer.from_pretrained(args.model),
        scheme="W4A16",
        bits=args.bits,
        group_size=args.group,
        sym=args.symmetric,
        iters=args.iterations,
        dataset=DataLoader(list(windows), batch_size=BATCH, collate_fn=collate),
        nsamples=len(windows),
        seqlen=windows.shape[1],
        batch_size=BATCH,
        device_map="cpu",
        enable_torch_compile=False,
    )
    model, _ = rounder.quantize()

    result = Result()
    for name, module in model.named_modules():
        scale = getattr(module, "scale", None)
        if not isinstance(module, torch.nn.Linear) or scale is None:
            continue
        zero = module.zp
        scale = scale.float().view(len(module.weight), -1, 1)
        shift = zero.float().view(scale.shape) if isinstance(zero, torch.Tensor) else float(zero)
        # As for the others: recover the codes from the working precision, expand them in float32.
        grouped = module.weight.float().unflatten(1, (scale.shape[1], -1))
        codes = (grouped / scale + shift).round().clamp(0, 2**args.bits - 1)
        weight = ((codes - shift) * scale).flatten(1)
        stored = [(module.scale, None)] + ([] if args.symmetric else [(zero, args.bits)])
        result.add(name, weight, args.bits, *stored)
    result.write(
        args,
        peer="autoround",
        version=version("auto-round"),
        method=f"SignRound, {args.iterations} iterations, batch {BATCH}, {args.dtype}",
        symmetric=args.symmetric,
    )


if __name__ == "__main__":
    main()
