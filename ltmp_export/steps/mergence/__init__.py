"""The patches that the class token attends to most stay; each other one merges into one of them."""
