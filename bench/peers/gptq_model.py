"""Peer: GPTQModel's GPTQ with its own defaults (group-aware activation order)."""

import os
from importlib.metadata import version

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its own default fails on two cores

import torch
from common import Result, arguments, calibration
from gptqmodel import GPTQModel, QuantizeConfig

BATCH = 8


def main():
    """Quantize the model and write the result."""
    args = arguments()
    windows = calibration(args)
    config = QuantizeConfig(
        bits=args.bits,
        group_size=args.group,
        sym=args.symmetric,
        format="gptq_v2",  # the same codes as "gptq", without its zero points stored minus one
        device="cpu",
        offload_to_disk=False,
    )
    model = GPTQModel.load(args.model, config, dtype=getattr(torch, args.dtype))
    examples = [{"input_ids": row[None], "attention_mask": torch.ones_like(row)[None]} for row in windows]
    model.quantize(examples, batch_size=BATCH)

    result = Result()
    for name, module in model.model.named_modules():
        if not hasattr(module, "qweight"):
            continue
        scales = module.scales
        module.scales = scales.float()  # its own unpacking and formula, but evaluated in float32
        weight = module.dequantize_weight().T
        zeros = [] if args.symmetric else [(scales, args.bits)]  # one zero point per scale
        result.add(name, weight, args.bits, (scales, None), (module.g_idx, None), *zeros)
    result.write(
        args,
        peer="gptqmodel",
        version=version("gptqmodel"),
        method=f"GPTQ, group-aware activation order, {args.dtype}",
        symmetric=args.symmetric,
    )


if __name__ == "__main__":
    main()
