"""One rule for all joins: a pair is made only where each side has no other choice.

What is near an item in the strict sense is its candidate. For an item with none, so is what is
near within some slack (stamps are rounded, readers are late) and is nobody's candidate in the
strict sense. One candidate, which nobody else has as well, is the match; anything else is
ambiguous, and said, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Candidate = TypeVar("Candidate")


class Claim(NamedTuple, Generic[Candidate]):
    """What an item came to. ``status`` is ``linked``, ``ambiguous`` or ``unmatched``.

    ``candidates`` is the one that is linked, or all that it may be.
    """

    status: str
    candidates: tuple[Candidate, ...] = ()


def settle(
    items: Sequence[Item],
    near: Callable[[Item, float], list[Candidate]],
    slack_seconds: float,
) -> list[Claim[Candidate]]:
    """Return the claim of each item, in their order.

    Args:
        items: what wants a partner.
        near: the candidates of an item that lie at most so many seconds outside of its time.
        slack_seconds: how far outside they may lie at most.
    """
    found = [near(item, 0.0) for item in items]
    taken = {id(candidate) for candidates in found for candidate in candidates}
    for index, item in enumerate(items):
        if not found[index]:
            found[index] = [c for c in near(item, slack_seconds) if id(c) not in taken]
    counts: dict[int, int] = {}
    for candidates in found:
        for candidate in candidates:
            counts[id(candidate)] = counts.get(id(candidate), 0) + 1
    return [_claim(candidates, counts) for candidates in found]


def _claim(candidates: list[Candidate], counts: dict[int, int]) -> Claim[Candidate]:
    if not candidates:
        return Claim("unmatched")
    is_alone = len(candidates) == 1 and counts[id(candidates[0])] == 1
    return Claim("linked" if is_alone else "ambiguous", tuple(candidates))
