"""Patch tokens give way to those in the middle of clusters of them, before a block."""
