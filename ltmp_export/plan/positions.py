"""Where a token lies that several have become, and what similarity knows of it: stated choices."""

MEAN, DESTINATION = "mean", "destination"
MERGED = (MEAN, DESTINATION)  # the mean of its patches' places, or that of the one merged into
UNROTATED, ROTATED = "unrotated", "rotated"
METRIC = (UNROTATED, ROTATED)  # keys before they are turned, or after

ROTARY, RELATIVE = "rotary", "relative"
KINDS = (ROTARY, RELATIVE, "")
