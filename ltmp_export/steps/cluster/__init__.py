"""Patch tokens become clusters around those of the highest density and distance."""
