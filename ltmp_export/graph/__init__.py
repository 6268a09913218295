"""ONNX graphs in memory: written node by node, ragged batches, models too large for a message."""
