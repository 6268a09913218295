"""The most similar tokens become their mean, so many of them."""
