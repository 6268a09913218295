"""The least important tokens go, so many of them."""
