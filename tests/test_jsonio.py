from __future__ import annotations

import gc
import json  # noqa: TID251 - the standard library as a second opinion
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.errors import InputError

DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('abé/"\\'), inner),
    max_leaves=20,
)


def test_canonical_bytes_are_pinned() -> None:
    document = {"b": [1, 2.5, None], "a": {"é/": 'x"\\', "0.1": True}}
    assert jsonio.canonical(document) == (
        b'{"a":{"0.1":true,"\\u00e9/":"x\\"\\\\"},"b":[1,2.5,null]}\n'
    )


@given(DOCUMENTS)
def test_what_is_written_is_read_back_here_and_elsewhere(document: object) -> None:
    text = jsonio.canonical(document)
    assert jsonio.loads(text) == document
    assert json.loads(text) == document
    assert json.loads(jsonio.compact(document)) == document
    assert json.loads(jsonio.pretty(document)) == document


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite_when_written(number: float) -> None:
    for write in (jsonio.canonical, jsonio.compact, jsonio.pretty):
        with pytest.raises((ValueError, OverflowError)):
            write({"x": number})


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[Infinity]", b"\xff", "[" * 100_000])
def test_what_is_not_json_is_an_input_error_that_names_the_file(text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"^db\.json: "):
        jsonio.loads(text, "db.json")


def test_the_words_of_numbers_may_stand_in_strings() -> None:
    assert jsonio.loads('["NaN", "Infinity"]') == ["NaN", "Infinity"]


def test_the_collector_is_as_before_afterwards() -> None:
    assert gc.isenabled()
    with pytest.raises(InputError):
        jsonio.loads("{")
    assert gc.isenabled()
