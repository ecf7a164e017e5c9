from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.topology import families


def test_each_name_is_there_once() -> None:
    groups = (*families.RAW, *families.JOINED)
    names = [family.name for group in groups for family in group.families]
    assert len(set(names)) == len(names)
    for group in groups:
        assert set(group.bounded) <= set(group.labels)


def test_a_usual_name_stays_what_it_is() -> None:
    for name in ("tor-relay Unnamed", 'a "quoted" \\ one', "Überwachung", ""):
        assert families.protected(name) == name


@given(st.text(st.characters(exclude_categories=[]), max_size=300))
def test_any_text_becomes_a_label_of_its_own(text: str) -> None:
    shown = families.protected(text)
    assert len(shown) <= 213
    assert shown.encode().decode() == shown
    assert all(character.isprintable() or ord(character) >= 0xA0 for character in shown)
    assert families.protected(shown) == shown
    if shown != text:
        assert families.protected(text + "x") != shown
