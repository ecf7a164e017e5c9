"""Draws `perfmeasure.analysis.figures` with matplotlib, the same bytes for the same numbers."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure as Canvas

from perfmeasure.analysis.figures import Figure, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

# Colours that people with any kind of colour vision tell apart (Okabe and Ito, Color Universal
# Design, 2008), and marks for those who print without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "os^Dv<>"
_STYLES = ("-", "--", "-.", ":")
_SIZE_INCHES = (7.0, 4.5)
_INCHES_A_NAME = 0.28
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "font.size": 9.0,
    "svg.hashsalt": "perfmeasure",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
# Of a curve with a long tail, what lies beyond this part is not drawn, and said.
_DRAWN_SHARE = 0.99


def pdf(figures: Iterable[Figure]) -> bytes:
    """Return all figures as one PDF, one a page."""
    target = io.BytesIO()
    with mpl.rc_context(_STYLE), PdfPages(target, metadata={"CreationDate": None}) as pages:
        for figure in figures:
            pages.savefig(draw(figure))
    return target.getvalue()


def image(figure: Figure, kind: str) -> bytes:
    """Return one figure as ``svg`` or ``png``."""
    target = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(_STYLE):
        draw(figure).savefig(target, format=kind, dpi=150, metadata=metadata)
    return target.getvalue()


def draw(figure: Figure) -> Canvas:
    """Return a figure drawn; one without any values says so."""
    names = _names(figure)
    width, height = _SIZE_INCHES
    if figure.kind in {Kind.STRIP, Kind.DAYS} or _is_lying(names):
        lines = len(names) * (len(figure.series) if figure.kind is Kind.BAR else 1)
        height = max(height, 1.5 + _INCHES_A_NAME * lines)
    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(figure.title, wrap=True)
    if figure.is_empty:
        said = f"Nothing to show of {', '.join(figure.series) or 'no data set'}"
        axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes, wrap=True)
        axes.set_axis_off()
        return canvas
    axes.set(xlabel=figure.xlabel, ylabel=figure.ylabel)
    _DRAW[figure.kind](axes, figure, names)
    if missing := [label for label, values in figure.series.items() if not values]:
        axes.set_title(f"{figure.title}\n(nothing of {', '.join(missing)})", wrap=True)
    return canvas


def _names(figure: Figure) -> list[str]:
    """Return the names that stand on an axis, without repetition."""
    place = {Kind.BAR: 0, Kind.STRIP: 1, Kind.DAYS: 1}.get(figure.kind)
    if place is None:
        return []
    return list(dict.fromkeys(v[place] for values in figure.series.values() for v in values))


def _drawn(figure: Figure) -> Iterable[tuple[int, str, Sequence[Any]]]:
    for index, (label, values) in enumerate(figure.series.items()):
        if values:
            yield index, label, values


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _counted(label: str, values: Sequence[Any]) -> str:
    return f"{label} (n = {len(values)})"


def _ecdf(axes: Axes, figure: Figure, names: Sequence[str]) -> None:
    del names
    everything = np.concatenate([np.asarray(v, float) for _, _, v in _drawn(figure)])
    low, high = (
        float(everything.min()),
        float(np.quantile(everything, _DRAWN_SHARE, method="higher")),
    )
    margin = (high - low or abs(high) or 1.0) * 0.03
    for index, label, values in _drawn(figure):
        ordered = np.sort(np.asarray(values, float))
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        x = np.concatenate(([low - margin], ordered, [max(high, ordered[-1]) + margin]))
        y = np.concatenate(([0.0], share, [1.0]))
        # One value is a step that is hard to see: it gets a mark, too.
        mark = _MARKS[index % len(_MARKS)] if len(ordered) == 1 else ""
        style = _STYLES[index % len(_STYLES)]
        axes.step(
            x, y, where="post", color=_colour(index), linestyle=style, marker=mark,
            markevery=[1] if mark else None, label=_counted(label, values),
        )  # fmt: skip
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(0, 1.02)
    beyond = int((everything > high).sum())
    if beyond:
        axes.set_xlabel(f"{axes.get_xlabel()}; {beyond} values above {high:.3g} are not shown")
    axes.legend(loc="lower right")


def _days_axis(axes: Axes, figure: Figure) -> None:
    moments = [value[0] for values in figure.series.values() for value in values]
    if min(moments) == max(moments):
        # One point would stand in years of nothing.
        axes.set_xlim(*_moments((moments[0] - 3600, moments[0] + 3600)))
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _moments(unix_ts: Iterable[float]) -> Any:
    return date2num([datetime.fromtimestamp(each, UTC) for each in unix_ts])


def _time(axes: Axes, figure: Figure, names: Sequence[str]) -> None:
    del names
    for index, label, values in _drawn(figure):
        axes.scatter(
            _moments(moment for moment, _ in values), [value for _, value in values],
            s=12, alpha=0.5, color=_colour(index), marker=_MARKS[index % len(_MARKS)],
            label=_counted(label, values), linewidths=0,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    _days_axis(axes, figure)
    axes.legend(loc="upper right")


def _box(axes: Axes, figure: Figure, names: Sequence[str]) -> None:
    del names
    drawn = list(_drawn(figure))
    axes.boxplot(
        [list(values) for _, _, values in drawn],
        tick_labels=[_counted(label, values) for _, label, values in drawn],
        showfliers=False,
        widths=0.5,
        medianprops={"color": _COLOURS[1]},
    )
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")


def _is_lying(names: Sequence[str]) -> bool:
    """Whether bars lie, so that their names can be read."""
    return sum(map(len, names)) > 60 or len(names) > 8


def _bar(axes: Axes, figure: Figure, names: Sequence[str]) -> None:
    drawn = list(_drawn(figure))
    # Bars that are named by their dataset stand one beside the other.
    is_by_label = all(len(v) == 1 and v[0][0] == label for _, label, v in drawn)
    width = 0.6 if is_by_label else 0.8 / len(drawn)
    is_lying = _is_lying(names)
    for place, (index, label, values) in enumerate(drawn):
        shift = 0.0 if is_by_label else (place - (len(drawn) - 1) / 2) * width
        places = [names.index(name) + shift for name, _ in values]
        numbers = [value for _, value in values]
        colour = _colour(index)
        if is_lying:
            bars = axes.barh(places, numbers, width * 0.9, color=colour, label=label)
        else:
            bars = axes.bar(places, numbers, width * 0.9, color=colour, label=label)
        axes.bar_label(bars, fmt="{:.4g}", fontsize="small", padding=2)
    margins = (-0.6, len(names) - 0.4)
    if is_lying:
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.set_ylim(margins[::-1])
        axes.set(xlabel=figure.ylabel, ylabel=figure.xlabel)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
    else:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(margins if len(names) > 2 else (margins[0] - 0.6, margins[1] + 0.6))
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.1)
    if not is_by_label:
        axes.legend(loc="best")


def _beside_names(axes: Axes, figure: Figure, names: Sequence[str]) -> None:
    count = len(figure.series)
    for index, label, values in _drawn(figure):
        x = [value for value, _ in values]
        shift = (index - (count - 1) / 2) * 0.5 / count
        axes.scatter(
            _moments(x) if figure.kind is Kind.DAYS else x,
            [names.index(name) + shift for _, name in values],
            s=16, alpha=0.7, color=_colour(index), marker=_MARKS[index % len(_MARKS)],
            label=_counted(label, values), linewidths=0,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [str(name)[:60] for name in names])
    axes.tick_params(axis="y", labelsize="small")
    axes.set_ylim(len(names) - 0.5, -0.5)
    if figure.kind is Kind.DAYS:
        _days_axis(axes, figure)
    axes.legend(loc="best")


_DRAW = {
    Kind.ECDF: _ecdf,
    Kind.TIME: _time,
    Kind.BOX: _box,
    Kind.BAR: _bar,
    Kind.STRIP: _beside_names,
    Kind.DAYS: _beside_names,
}
