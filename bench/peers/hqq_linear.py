"""Peer: HQQ, half-quadratic quantization. Uses no calibration."""

from importlib.metadata import version

import torch
from common import Result, arguments, is_target
from hqq.core.quantize import HQQLinear, Quantizer, hqq_base_quant_config
from transformers import AutoModelForCausalLM


def main():
    """Quantize the model and write the result."""
    args = arguments()
    if args.symmetric:
        raise SystemExit("HQQ has no symmetric mode")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    config = hqq_base_quant_config(nbits=args.bits, group_size=args.group, axis=1)
    result = Result()
    for name, module in list(model.named_modules()):
        if is_target(name, module):
            layer = HQQLinear(module, config, compute_dtype=torch.float16, device="cpu", del_orig=False)
            scale, zero = layer.meta["scale"], layer.meta["zero"]
            # Its own unpacking and formula, but evaluated in float32.
            in_float = layer.meta | {"scale": scale.float(), "zero": zero.float(), "compute_dtype": torch.float32}
            weight = Quantizer.dequantize(layer.W_q, in_float)
            result.add(name, weight, args.bits, (scale, None), (zero, None))
    result.write(
        args,
        peer="hqq",
        version=version("hqq"),
        method="HQQ, axis 1, its base configuration",
        symmetric=False,
    )


if __name__ == "__main__":
    main()
