from __future__ import annotations

import re

import numpy as np
from lxml import etree

from perfmeasure.analysis import drawing, htmlpage
from perfmeasure.analysis.datasets import Dataset
from perfmeasure.analysis.figures import figures
from tests.analysis import simulated


def test_all_in_one_page() -> None:
    found = [simulated.dataset("A <b>", np.random.default_rng(1), count=20), Dataset("none")]
    drawn = [(figure, drawing.image(figure, "svg")) for figure in list(figures(found))[:3]]
    page = htmlpage.page(drawn, found).decode()
    assert "<b>" not in page
    assert page.count("<svg ") == page.count("</svg>") == 3
    assert page.count('role="img"') == 3
    # Nothing is fetched, and no part of a figure has the name of one of another.
    assert not re.search(r'(src|href)="(?!#)', re.sub(r'xmlns[^"]*"[^"]*"', "", page))
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    for name in re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page):
        assert name in names
    for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        etree.fromstring(svg)
