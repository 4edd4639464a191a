"""An ONNX network: its graph, where its integers flow, and how it is run, replayed and walked."""
