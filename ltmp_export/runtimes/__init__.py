"""Where files run: sessions, providers, and what the installed runtime can do."""
