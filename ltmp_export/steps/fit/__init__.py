"""A budget: the most important tokens stay where there are too many."""
