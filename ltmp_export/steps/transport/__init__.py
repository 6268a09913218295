"""All patch tokens are mixed by shares that balance tokens and centres (Sinkhorn)."""
