"""The plan of a reduced model in plain numbers, the geometry of a ViT, and the work it is."""
