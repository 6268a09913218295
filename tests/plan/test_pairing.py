"""Pairing against a walk over all rows, one by one (METHODS §1)."""

from __future__ import annotations

import pytest

from ltmp_export.plan import pairing

TOKENS, PROTECTED = range(13), range(5)


def walked(tokens: int, protected: int) -> tuple[list[int], list[int]]:
    """Even rows are sources and odd rows destinations, of all rows; protected ones are neither."""
    sources: list[int] = []
    destinations: list[int] = []
    for row in range(tokens):
        if row < protected:
            continue
        (destinations if row % 2 else sources).append(row)
    return sources, destinations


@pytest.mark.parametrize("protected", PROTECTED)
@pytest.mark.parametrize("tokens", TOKENS)
class TestRows:
    def test_how_many(self, tokens: int, protected: int) -> None:
        sources, destinations = walked(tokens, protected)
        assert pairing.sources(tokens, protected) == len(sources)
        assert pairing.destinations(tokens, protected) == len(destinations)

    def test_which(self, tokens: int, protected: int) -> None:
        sources, destinations = walked(tokens, protected)
        assert list(range(pairing.first_source(protected), tokens, 2)) == sources
        assert list(range(pairing.first_destination(protected), tokens, 2)) == destinations

    def test_the_most_that_merge(self, tokens: int, protected: int) -> None:
        """As ToMe counts: half of those that take part, rounded down."""
        taking_part = [row for row in range(tokens) if row >= protected]
        pairs = list(zip(taking_part[0::2], taking_part[1::2], strict=False))
        assert pairing.most_merged(tokens, protected) == len(pairs)
        sources, _ = walked(tokens, protected)
        assert pairing.most_merged(tokens, protected) <= len(sources)


@pytest.mark.parametrize(
    ("protected", "source", "destination"),
    [(0, 0, 1), (1, 2, 1), (2, 2, 3), (3, 4, 3), (4, 4, 5)],
)
def test_first_rows_by_hand(protected: int, source: int, destination: int) -> None:
    assert pairing.first_source(protected) == source
    assert pairing.first_destination(protected) == destination
