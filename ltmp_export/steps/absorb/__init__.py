"""Patches that stand behind others merge into the most similar of these, whose sizes then grow."""
