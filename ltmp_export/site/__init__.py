"""A static site that runs an exported model in the visitor's browser."""
