"""All patch tokens are mixed by shares that two linear layers give each of them (SiT)."""
