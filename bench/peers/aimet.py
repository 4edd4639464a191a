"""Peer: aimet-onnx with its TF-enhanced (SQNR) ranges; `--adaround N` learns the rounding."""

import argparse

import aimet_onnx
import numpy as np
import onnx

BATCH = 32


def main():
    """Quantize the model and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="float ONNX file")
    parser.add_argument("--calibration", required=True, help=".npz: one array for each input of the network")
    parser.add_argument("--bits", type=int, default=8, help="of the weights: 8 or 4")
    parser.add_argument("--adaround", type=int, default=0, help="iterations of AdaRound for each layer")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    args = parser.parse_args()
    with np.load(args.calibration) as data:
        feeds = {name: data[name] for name in data.files}
    count = len(next(iter(feeds.values())))
    batches = [{n: x[i : i + BATCH] for n, x in feeds.items()} for i in range(0, count, BATCH)]
    simulation = aimet_onnx.QuantizationSimModel(
        onnx.load(args.model),
        param_type=aimet_onnx.int8 if args.bits == 8 else aimet_onnx.int4,
        activation_type=aimet_onnx.int8,
        quant_scheme="tf_enhanced",
        config_file="htp_v73",  # of its configurations, one whose weights are per channel
        providers=["CPUExecutionProvider"],
    )
    if args.adaround:
        aimet_onnx.apply_adaround(simulation, batches, num_iterations=args.adaround)
    simulation.compute_encodings(batches)
    onnx.save(simulation.to_onnx_qdq(), args.out)


if __name__ == "__main__":
    main()
