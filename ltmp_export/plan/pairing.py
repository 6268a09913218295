"""Which rows pair up: even rows are sources, odd rows destinations, of all rows.

The P protected rows stand in front and take part in neither: with P = 1 (a class token) the first
patch is a destination, with P = 2 the first destination is row 3. Source i and destination j are
counted among those that take part.
"""

from __future__ import annotations


def first_source(protected: int) -> int:
    """The row of source 0."""
    return protected + protected % 2


def first_destination(protected: int) -> int:
    """The row of destination 0."""
    return protected + 1 - protected % 2


def protected_sources(protected: int) -> int:
    """How many of the protected rows are even."""
    return first_source(protected) // 2


def protected_destinations(protected: int) -> int:
    """How many of the protected rows are odd."""
    return first_destination(protected) // 2


def least(protected: int) -> int:
    """The fewest tokens of which there are a source and a destination."""
    return protected + 2


def sources(tokens: int, protected: int) -> int:
    """How many sources N tokens have."""
    return len(range(first_source(protected), tokens, 2))


def destinations(tokens: int, protected: int) -> int:
    """How many destinations N tokens have."""
    return len(range(first_destination(protected), tokens, 2))


def most_merged(tokens: int, protected: int) -> int:
    """How many of N tokens a fixed rate can merge at the most, as ToMe counts them."""
    return max(0, tokens - protected) // 2
