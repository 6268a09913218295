"""Plain Vision Transformers: read, built, described, and lowered to ONNX."""
