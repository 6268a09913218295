"""timm's `Eva`: EVA, EVA-02, DINOv3, Perception Encoder, rope ViTs, LingBot, Sapiens2."""
