"""The tokens that the class token attends to most stay; the rest become one token."""
