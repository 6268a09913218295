"""MobileViT (v1): convolutions, and transformers among the patches of a map."""
