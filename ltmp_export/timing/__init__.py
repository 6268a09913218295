"""How long models take: each in a process of its own, in alternating rounds."""
