"""Peer: onnxruntime.quantization.quantize_static, as its documentation recommends for x86 with VNNI.

quant_pre_process first, then QDQ nodes, uint8 activations, int8 weights per channel; `--bits 4`: its INT4 weights.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Hands out the calibration samples in batches, in their order."""

    def __init__(self, feeds, batch):
        count = len(next(iter(feeds.values())))
        self.batches = iter([{n: x[i : i + batch] for n, x in feeds.items()} for i in range(0, count, batch)])

    def get_next(self):
        """Return the next batch, or None at the end."""
        return next(self.batches, None)


def main():
    """Quantize the model and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="float ONNX file")
    parser.add_argument("--calibration", required=True, help=".npz: one array for each input of the network")
    parser.add_argument("--bits", type=int, default=8, help="of the weights: 8 or 4")
    parser.add_argument("--rule", default="MinMax", help="MinMax, Entropy or Percentile")
    parser.add_argument("--batch", type=int, default=32, help="samples at once; Percentile wants them of one size")
    parser.add_argument("--plain-shapes", action="store_true", help="without its symbolic shapes, which fail on some")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    args = parser.parse_args()
    with np.load(args.calibration) as data:
        feeds = {name: data[name] for name in data.files}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(args.model, prepared, skip_symbolic_shape=args.plain_shapes)
        quantize_static(
            prepared,
            args.out,
            Reader(feeds, args.batch),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8 if args.bits == 8 else QuantType.QInt4,
            calibrate_method=CalibrationMethod[args.rule],
        )


if __name__ == "__main__":
    main()
