"""Reference: plain round-to-nearest, per-group min-max range, float16 scales. Uses no calibration."""

import torch
from common import Result, arguments, is_target
from transformers import AutoModelForCausalLM


def round_to_nearest(weight, bits, group, symmetric):
    """Return the dequantized weight, the scales and the zero points (None when symmetric)."""
    grouped = weight.unflatten(1, (-1, group))
    if symmetric:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = (grouped.abs().amax(-1, keepdim=True) / (2**bits - 1) * 2).half()
        zero = None
    else:
        low, high = 0, 2**bits - 1
        smallest = grouped.amin(-1, keepdim=True).clamp(max=0)
        largest = grouped.amax(-1, keepdim=True).clamp(min=0)
        scale = ((largest - smallest) / high).half()
        zero = (-smallest / scale.float().clamp(min=1e-8)).round().clamp(low, high)
    step = scale.float().clamp(min=1e-8)
    shift = 0 if zero is None else zero
    codes = ((grouped / step).round() + shift).clamp(low, high)
    return ((codes - shift) * step).flatten(1), scale, zero


def main():
    """Quantize the model and write the result."""
    args = arguments()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    result = Result()
    with torch.no_grad():
        for name, module in model.named_modules():
            if is_target(name, module):
                weight, scale, zero = round_to_nearest(module.weight, args.bits, args.group, args.symmetric)
                stored = [(scale, None)] + ([] if zero is None else [(zero, args.bits)])
                result.add(name, weight, args.bits, *stored)
    result.write(
        args,
        peer="rtn",
        version=torch.__version__,
        method="round to nearest, min-max range",
        symmetric=args.symmetric,
    )


if __name__ == "__main__":
    main()
