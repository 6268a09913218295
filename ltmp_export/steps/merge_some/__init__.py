"""Similar tokens become their mean, by a threshold; where none does, all stay as they stand."""
