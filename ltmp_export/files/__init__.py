"""Files on disk: whole or not at all, within a memory limit; names that are nearly right."""
