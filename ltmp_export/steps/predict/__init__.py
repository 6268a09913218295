"""Keeping the tokens that a small network of its own prefers, before a block."""
