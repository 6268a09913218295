"""From a file of any dialect to a checkpoint: weights, frozen plan, geometry."""
