"""Keeping the patches that lie in a fixed pattern, before a block."""
