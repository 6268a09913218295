"""Swin Transformers of timm: build, geometry, what PyTorch computes, graph."""
