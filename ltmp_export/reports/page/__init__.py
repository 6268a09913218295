"""One HTML file that tells of a model: all parts inside, nothing fetched, every text escaped."""
