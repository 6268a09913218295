"""Similar tokens become their mean, by a threshold."""
