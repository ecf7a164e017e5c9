from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.claims import settle


def settled(items: list[int], candidates: list[int], slack: float = 5.0) -> list[tuple[str, ...]]:
    """Items at times, candidates at times: near is what lies at most the slack away."""
    boxed = [[candidate] for candidate in candidates]

    def near(item: int, slack_seconds: float) -> list[list[int]]:
        return [box for box in boxed if abs(box[0] - item) <= 1 + slack_seconds]

    return [(claim.status, *map(str, claim.candidates)) for claim in settle(items, near, slack)]


def test_one_candidate_that_nobody_else_has() -> None:
    assert settled([0, 100], [0, 101]) == [("linked", "[0]"), ("linked", "[101]")]


def test_slack_is_only_for_who_has_none() -> None:
    assert settled([0], [1, 5]) == [("linked", "[1]")]
    assert settled([0], [5]) == [("linked", "[5]")]
    assert settled([0], [7]) == [("unmatched",)]


def test_what_another_has_strictly_is_not_taken_by_slack() -> None:
    assert settled([0, 5], [5]) == [("unmatched",), ("linked", "[5]")]


def test_two_either_way_are_ambiguous() -> None:
    assert settled([0], [0, 1]) == [("ambiguous", "[0]", "[1]")]
    assert settled([0, 1], [1]) == [("ambiguous", "[1]")] * 2


@given(
    st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(0, 40), max_size=6, unique=True)
)
def test_nothing_is_linked_twice(items: list[int], candidates: list[int]) -> None:
    linked = [claim[1] for claim in settled(items, candidates) if claim[0] == "linked"]
    assert len(linked) == len(set(linked))
