"""Float ONNX networks to integer inference: plan, calibrate, rewrite, solve, certify."""
