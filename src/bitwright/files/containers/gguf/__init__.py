"""GGUF, llama.cpp's files: so far how blocks of bytes hold a quantized matrix, and how tensors are read."""
