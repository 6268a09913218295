"""A learned mask merges the patches of an image into fewer, softly or each into one."""
