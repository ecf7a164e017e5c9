"""One page of HTML with figures in it, which needs nothing else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from perfmeasure.analysis import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfmeasure.analysis.datasets import Dataset
    from perfmeasure.analysis.figures import Figure

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>perfmeasure: downloads</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem }
svg { width: 100%; height: auto }
figure { margin: 2rem 0 }
h2 { font-size: 1.1rem }
table { border-collapse: collapse }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ccc }
th:first-child, td:first-child { text-align: left }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd }
  svg { background: #fff; border-radius: 4px }
}
</style>
<h1>Downloads</h1>
<table>
<tr><th>data set<th>hosts<th>transfers<th>failed<th>from (UTC)<th>to"""


def page(drawn: Sequence[tuple[Figure, bytes]], found: Sequence[Dataset]) -> bytes:
    """Return the page.

    ``drawn`` are the figures with their SVG.
    """
    parts = [_HEAD]
    for dataset in found:
        starts = [row["start"] for row in dataset.rows]
        failed = sum(row["error_code"] is not None for row in dataset.rows)
        span = [rows.start_text(each)[:16] for each in (min(starts), max(starts))] if starts else []
        cells = [
            dataset.label,
            ", ".join(sorted(name for name, _ in dataset.hosts)),
            str(len(dataset.rows)),
            str(failed),
            *(span or ["-", "-"]),
        ]
        parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells))
    parts.append("</table>")
    for figure, svg in drawn:
        # What stands before the <svg> is for files of their own.
        text = svg.decode()[svg.index(b"<svg") :]
        # Every figure names its parts alike: they must not be taken for one another.
        for mark in ('id="', "url(#", 'href="#'):
            text = text.replace(mark, f"{mark}{figure.name}-")
        title = html.escape(figure.title)
        text = text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
        parts.append(f"<figure><figcaption><h2>{title}</h2></figcaption>{text}</figure>")
    return "\n".join(parts).encode()
