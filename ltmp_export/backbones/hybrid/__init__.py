"""What networks that mix convolutions with attention have in common."""
