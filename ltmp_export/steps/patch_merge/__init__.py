"""Few mixtures take the place of all patch tokens."""
