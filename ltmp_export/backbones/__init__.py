"""The networks whose tokens are reduced, a folder each."""
