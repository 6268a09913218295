"""EfficientViT of MIT: convolutions, and linear attention among the cells of a map."""
