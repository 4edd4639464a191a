"""What every peer script shares: its arguments, the calibration windows, and the result it leaves."""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parent.parent))
from windows import token_windows


def arguments():
    """Parse the command line every peer understands, and keep torch to one thread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="float model directory")
    parser.add_argument("--calibration", required=True, help="calibration texts")
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--group", type=int, required=True, help="weights that share one scale")
    parser.add_argument("--symmetric", action="store_true", help="no zero points")
    parser.add_argument("--iterations", type=int, default=200, help="for peers that train their rounding")
    parser.add_argument("--dtype", default="bfloat16", help="precision the peer loads the model in")
    parser.add_argument("--out", required=True, help="result directory")
    torch.set_num_threads(1)
    return parser.parse_args()


def calibration(args):
    """Return the calibration windows, int64 [windows, length]."""
    return token_windows(args.model, args.calibration, args.windows, args.length)


def is_target(name, module):
    """Tell whether a module is quantized here: every linear layer but the head."""
    return isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")


class Result:
    """Collects dequantized layers and the bits they take in storage."""

    def __init__(self):
        self.weights, self.bits = {}, 0

    def add(self, name, weight, code_bits, *stored):
        """Record layer `name`: its dequantized weight, bits per code, and (tensor, bits per element) pairs.

        `None` for the bits of a stored tensor means those of its dtype.
        """
        self.weights[f"{name}.weight"] = weight.detach().float().contiguous().clone()
        self.bits += weight.numel() * code_bits
        self.bits += sum(t.numel() * (each or t.element_size() * 8) for t, each in stored)

    def write(self, args, **info):
        """Write dequantized.safetensors and info.json into the result directory."""
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        save_file(self.weights, out / "dequantized.safetensors", metadata={"format": "pt"})
        info |= {
            "bits": args.bits,
            "group": args.group,
            "stored_bits_per_weight": self.bits / sum(w.numel() for w in self.weights.values()),
            "layers": len(self.weights),
        }
        (out / "info.json").write_text(json.dumps(info, indent=1) + "\n")
