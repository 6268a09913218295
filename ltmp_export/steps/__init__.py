"""What happens to tokens: eager, packed, in slots, and as a file recorded it."""
