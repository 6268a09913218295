"""Exported files: written, read, validated, with weights beside them beyond 2 GB."""
