"""Tokens are sampled by the class token's attention; what is sampled twice stays once."""
