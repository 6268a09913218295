"""Pictures of which token each patch of an image is part of, block by block (`README.md`)."""
