"""Patches stand by the attention that the class token gives them; the last may go."""
