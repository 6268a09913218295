"""Where files run: a file for each runtime, one protocol for all, what the installed can do."""
