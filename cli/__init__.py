"""The `ltmp` command: a thin shell over `ltmp_export`."""
