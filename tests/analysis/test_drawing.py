from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from perfmeasure.analysis import drawing
from perfmeasure.analysis.datasets import Dataset
from perfmeasure.analysis.figures import Figure, Kind, figures
from tests.analysis import simulated

VALUES: dict[Kind, list[Any]] = {
    Kind.ECDF: [1.0, 2.0, 3.0],
    Kind.TIME: [(1.7e9, 1.0), (1.7e9 + 86400, 2.0)],
    Kind.BOX: [1.0, 2.0, 3.0],
    Kind.BAR: [("one", 1), ("two", 2)],
    Kind.STRIP: [(1.0, "relay"), (2.0, "other")],
    Kind.DAYS: [(1.7e9, "TOR"), (1.7e9 + 9, "TGEN")],
}


def _figure(kind: Kind, **series: list[Any]) -> Figure:
    return Figure("name", "A title", kind, "x", "y", series)


def _texts(figure: Figure) -> str:
    return re.sub("<[^>]*>", " ", drawing.image(figure, "svg").decode())


@pytest.mark.parametrize("kind", Kind)
def test_each_kind(kind: Kind) -> None:
    figure = _figure(kind, A=list(VALUES[kind]), B=list(VALUES[kind]))
    text = _texts(figure)
    assert "A title" in text
    names = [value for values in VALUES[kind] for value in np.atleast_1d(values)]
    for name in names:
        if isinstance(name, str) and name.isalpha():
            assert name in text


@pytest.mark.parametrize("kind", Kind)
def test_one_value_and_none(kind: Kind) -> None:
    assert "nothing of B" in _texts(_figure(kind, A=list(VALUES[kind][:1]), B=[]))
    assert "Nothing to show of A, B" in _texts(_figure(kind, A=[], B=[]))


@pytest.mark.parametrize("kind", [Kind.ECDF, Kind.BOX])
def test_all_alike(kind: Kind) -> None:
    assert "n = 3" in _texts(_figure(kind, A=[0.0, 0.0, 0.0]))


def test_a_long_tail_is_said() -> None:
    assert "2 values above" in _texts(_figure(Kind.ECDF, A=[*np.linspace(0, 1, 200), 99.0, 100.0]))


def test_a_curve_reaches_one_at_its_last_value() -> None:
    canvas = drawing.draw(_figure(Kind.ECDF, A=[3.0, 1.0, 2.0, 2.0]))
    x, y = canvas.axes[0].lines[0].get_data()
    shares = dict(zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True))
    assert (shares[1.0], shares[2.0], shares[3.0]) == (0.25, 0.75, 1.0)
    assert math.isclose(max(shares.values()), 1.0)


def test_the_same_numbers_give_the_same_bytes() -> None:
    figure = _figure(Kind.TIME, A=list(VALUES[Kind.TIME]))
    for kind in ("svg", "png"):
        assert drawing.image(figure, kind) == drawing.image(figure, kind)
    assert drawing.pdf([figure]) == drawing.pdf([figure])


def test_a_page_each() -> None:
    found = list(figures([Dataset("empty")]))[:3]
    data = drawing.pdf(found)
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b(?!s)", data)) == 3


def test_hostile_names() -> None:
    figure = _figure(Kind.BAR, **{"<b>$\\alpha$ & $": [("$x", 1), ("<script>", 2)]})
    assert "<script>" not in drawing.image(figure, "svg").decode()


def test_png_of_a_simulated_dataset() -> None:
    random = np.random.default_rng(1)
    found = simulated.dataset("A", random, count=20)
    first = next(iter(figures([found])))
    assert drawing.image(first, "png").startswith(b"\x89PNG")
