"""The commands as functions, a module for each: the only place that chains the stages."""
