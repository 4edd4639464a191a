"""The arithmetic of quantization: pure functions on NumPy and torch arrays, without files."""
