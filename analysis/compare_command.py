"""The command ``compare``."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from perfmeasure import jsonio
from perfmeasure.analysis import comparison, datasets
from perfmeasure.analysis.cautions import cautions
from perfmeasure.analysis.comparison import Comparison, Verdict
from perfmeasure.analysis.metrics import UNITS
from perfmeasure.errors import ExitStatus, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfmeasure.analysis.datasets import Dataset

_CONDITION = re.compile(
    r"\s*(?P<metric>[\w.]+)\s*(?P<sign>[<>])\s*(?P<number>[+-]?\d+(\.\d+)?)\s*%\s*\Z"
)
_SIGNS = {">": operator.gt, "<": operator.lt}
_OUTLIERS_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Condition:
    """What `--fail-if` asks: whether the effect on a metric is above or below a limit."""

    text: str
    metric: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return what ``METRIC > NUMBER%`` or ``METRIC < NUMBER%`` means.

        Raises:
            UsageError: it is neither.
        """
        match = _CONDITION.match(text)
        if not match:
            wanted = "a metric, > or <, and a percentage, such as 'ttfb_p50 > +5%'"
            raise UsageError("--fail-if", f"{text!r} is no condition", wanted)
        limit = float(match["number"]) / 100
        return cls(text.strip(), match["metric"], match["sign"], limit)

    def is_met(self, found: Comparison) -> bool:
        """Whether the effect is beyond the limit, and not by chance as far as one can tell.

        Where there are too few values for an interval, the effect alone decides.
        """
        is_beyond = _SIGNS[self.sign](found.effect, self.limit)
        return is_beyond and (not found.is_enough or found.verdict is Verdict.DIFFERENT)


def _checked(conditions: Sequence[Condition], found: Sequence[Comparison]) -> list[str]:
    by_name = {each.name: each for each in found}
    met = []
    for condition in conditions:
        if condition.metric not in by_name:
            got = f"{condition.metric!r} is not among the metrics of both datasets"
            raise UsageError("--fail-if", got, f"one of {', '.join(by_name) or 'none'}")
        each = by_name[condition.metric]
        if condition.is_met(each):
            met.append(f"{condition.text}: it is {_change(each.effect, each.is_rate)}")
    return met


def _change(effect: float, is_rate: bool) -> str:
    return f"{effect * 100:+.1f}{' points' if is_rate else ' %'}"


def _words(found: Comparison) -> str:
    if not found.is_enough:
        return "too few to tell"
    if found.verdict is Verdict.SAME:
        return "the same"
    if found.verdict is Verdict.INCONCLUSIVE:
        return "the data do not tell"
    is_more = found.effect > 0
    quantity = found.name.partition("_p")[0]
    if found.is_rate:
        return f"B succeeds {'more' if is_more else 'less'} often"
    if quantity == "throughput":
        return f"B is {'faster' if is_more else 'slower'}"
    return f"B is {'slower' if is_more else 'faster'}"


def _value(value: float, found: Comparison) -> str:
    if found.is_rate:
        return f"{value:.1%}"
    return f"{value:.3f} {UNITS[found.name.partition('_p')[0]]}"


def _table(found: Sequence[Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    for name in ("A", "B", "effect", "interval", "n"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for each in found:
        low, high = (f"{value * 100:+.1f}" for value in (each.ci_low, each.ci_high))
        table.add_row(
            each.name,
            _value(each.a, each),
            _value(each.b, each),
            _change(each.effect, each.is_rate),
            f"{low} … {high}",
            f"{each.n_a}, {each.n_b}",
            _words(each),
        )
    return table


def _outliers(dataset: Dataset) -> tuple[int, list[dict[str, Any]]]:
    """Return how many times to last byte stand far out, and the farthest.

    Far out is three times the distance of the quartiles above the upper one, of the logarithms.
    """
    rows = [row for row in dataset.rows if (row["time_to_last_byte"] or 0) > 0]
    if len(rows) < 4:
        return 0, []
    logs = np.log([row["time_to_last_byte"] for row in rows])
    lower, upper = np.quantile(logs, [0.25, 0.75])
    limit = upper + 3 * (upper - lower)
    far = [row for row, log in zip(rows, logs, strict=True) if log > limit]
    far.sort(key=lambda row: -row["time_to_last_byte"])
    named = [
        {"label": row["label"], "id": row["id"], "ttlb_seconds": row["time_to_last_byte"]}
        for row in far[:_OUTLIERS_SHOWN]
    ]
    return len(far), named


def _described(dataset: Dataset) -> dict[str, Any]:
    errors = Counter(row["error_code"] for row in dataset.rows if row["error_code"])
    count, named = _outliers(dataset)
    return {
        "label": dataset.label,
        "transfers": len(dataset.rows),
        "failures": dict(sorted(errors.items())),
        "incomplete": dataset.incomplete,
        "filtered_out": dataset.filtered_out,
        "outliers": count,
        "farthest_outliers": named,
        "hosts": sorted(nickname for nickname, _ in dataset.hosts),
        "tor_versions": sorted(dataset.tor_versions),
    }


def _say_dataset(name: str, described: dict[str, Any]) -> None:
    failures = sum(described["failures"].values())
    text = f"{name}: {described['transfers']} transfers of {', '.join(described['hosts']) or '-'}"
    text += f", {failures} failed"
    if failures:
        text += " (" + ", ".join(f"{n} {code}" for code, n in described["failures"].items()) + ")"
    for what in ("incomplete", "filtered_out"):
        if described[what]:
            text += f", {described[what]} {what.replace('_', ' ')}"
    if described["outliers"]:
        far = ", ".join(
            f"{each['id']} {each['ttlb_seconds']:.1f} s" for each in described["farthest_outliers"]
        )
        text += f", {described['outliers']} far out ({far}; kept: medians do not follow them)"
    click.echo(text)


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if an effect is beyond a limit and not by chance: 'ttfb_p50 > +5%'. "
    "May be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def compare_command(a: str, b: str, seed: int, conditions: tuple[str, ...], as_json: bool) -> int:
    """Say whether B is faster than A, how sure that is, and what speaks against it.

    A and B are databases of any version, folders of them, or globs. For each metric: its value in
    both, the effect (B against A), the interval in which it lies, and a verdict. The intervals
    hold all together: if nothing differs, the chance that anything is called different is 5 %.
    """
    if seed < 0:
        raise UsageError("--seed", f"{seed} is negative", "0 or more")
    asked = [Condition.parse(text) for text in conditions]
    first, second = datasets.load(a, "A"), datasets.load(b, "B")
    for place, dataset in ((a, first), (b, second)):
        if not dataset.rows:
            got = "holds no transfer that ended"
            raise InputError(
                place, got, "transfers to compare", f"see `perfmeasure report {place}`"
            )
    found = comparison.compare(first, second, seed)
    warnings = cautions(first, second, found)
    met = _checked(asked, found)
    described = [_described(dataset) for dataset in (first, second)]
    if as_json:
        click.echo(
            jsonio.compact(
                {
                    "metrics": {each.name: each.record() for each in found},
                    "warnings": warnings,
                    "datasets": {"a": described[0], "b": described[1]},
                    "failed_conditions": met,
                    "seed": seed,
                }
            )
        )
    else:
        for name, each in zip(("A", "B"), described, strict=True):
            _say_dataset(name, each)
        Console(width=None if Console().is_terminal else 140).print(_table(found))
        for text in warnings:
            click.echo(f"warning: {text}.", err=True)
    for text in met:
        click.echo(f"perfmeasure: --fail-if {text}", err=True)
    return ExitStatus.FAILED if met else ExitStatus.DONE
