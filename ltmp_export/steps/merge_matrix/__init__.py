"""A constant matrix merges the tokens that enter a block, another recovers them behind it."""
