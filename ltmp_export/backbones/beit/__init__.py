"""timm's `Beit`: BEiT and BEiT v2."""
