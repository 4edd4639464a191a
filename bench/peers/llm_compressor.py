"""Peer: llm-compressor's GPTQ with its own defaults (static activation order, 1 % dampening)."""

from importlib.metadata import version

import torch
from common import Result, arguments, calibration
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle import dequantize, quantize
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

BATCH = 8


def collate(rows):
    """Make a model input of some windows."""
    ids = torch.stack(rows)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main():
    """Quantize the model and write the result."""
    args = arguments()
    windows = calibration(args)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    weights = QuantizationArgs(
        num_bits=args.bits,
        type="int",
        symmetric=args.symmetric,
        strategy="group",
        group_size=args.group,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    oneshot(
        model=model,
        dataset=DataLoader(list(windows), batch_size=BATCH, collate_fn=collate),
        recipe=GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]),
        num_calibration_samples=len(windows),
        max_seq_length=windows.shape[1],
    )

    result = Result()
    for name, module in model.named_modules():
        used = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if used is None:
            continue
        scale, zero = module.weight_scale, getattr(module, "weight_zero_point", None)
        zero = None if args.symmetric else zero
        # The weight holds the dequantized values in the working precision: recover its codes and
        # expand them once more in float32, so that no rounding of ours is charged to the peer.
        codes = quantize(module.weight.float(), scale.float(), zero, used)
        weight = dequantize(codes, scale.float(), zero, used)
        stored = [(scale, None)] + ([] if zero is None else [(zero, args.bits)])
        result.add(name, weight, args.bits, *stored)
    result.write(
        args,
        peer="llm-compressor",
        version=version("llmcompressor"),
        method=f"GPTQ, static activation order, 1 % dampening, {args.dtype}",
        symmetric=args.symmetric,
    )


if __name__ == "__main__":
    main()
