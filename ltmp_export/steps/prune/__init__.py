"""Unimportant tokens go, by a threshold."""
