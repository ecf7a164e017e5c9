"""The optional ways to aggregate, together: which are asked for, what they take in and found.

By prefix, by a sketch, the largest flows only, by second, minute and hour, in windows that follow
the load. Each is measured against the exact table of the same run, where there is one, and says by
how much it may be wrong and by how much it is.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from perfmeasure.errors import UsageError
from perfmeasure.flows import prefixes, sketch, summary
from perfmeasure.flows.adaptive import Bounds
from perfmeasure.flows.keys import DIRECTIONS, Total
from perfmeasure.flows.levels import LEVELS, Levels
from perfmeasure.flows.prefixes import PrefixLengths
from perfmeasure.flows.sketch import Sketch
from perfmeasure.flows.topk import TopFlows
from perfmeasure.flows.window_store import WindowStore
from perfmeasure.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from perfmeasure.flows.keys import Array
    from perfmeasure.flows.loader import Program
    from perfmeasure.flows.times import KernelTimes
    from perfmeasure.flows.windows import Window


@dataclass(frozen=True)
class Asked:
    """Which aggregations are wanted; none unless it is said."""

    prefix_lengths: PrefixLengths | None = None
    is_against_exact: bool = False
    is_sketch: bool = False
    keep_count: int | None = None
    is_levels: bool = False
    bounds: Bounds | None = None


def aggregation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and `Asked` as its keyword argument ``asked``."""

    @click.option(
        "--prefix-length",
        metavar="N[,N6]",
        help="Count by pairs of prefixes instead of flows: so many bits of IPv4 and of IPv6 "
        f"addresses ({prefixes.DEFAULT_IPV6} unless given), no ports.",
    )
    @click.option(
        "--against-exact",
        is_flag=True,
        help="With --prefix-length: count by flow as well, and say by what the two differ.",
    )
    @click.option(
        "--sketch",
        "is_sketch",
        is_flag=True,
        help="Keep a count-min sketch beside the table, and say how far its estimates are off.",
    )
    @click.option(
        "--keep",
        "keep_count",
        type=click.IntRange(1, 4_194_304),
        metavar="N",
        help="Keep the N largest flows of the run only, the rest summed by protocol and direction.",
    )
    @click.option(
        "--levels",
        "is_levels",
        is_flag=True,
        help="Sum windows up to seconds, minutes and hours; with --prefix, into kernel/levels.",
    )
    @click.option(
        "--window-bounds",
        metavar="MIN,MAX",
        help="Let the length of the windows follow the load between these, by halves and doubles.",
    )
    @functools.wraps(command)
    def with_options(
        *,
        prefix_length: str | None,
        against_exact: bool,
        is_sketch: bool,
        keep_count: int | None,
        is_levels: bool,
        window_bounds: str | None,
        **others: Any,
    ) -> Any:
        if against_exact and prefix_length is None:
            raise UsageError("--against-exact", "given alone", "it with --prefix-length")
        asked = Asked(
            None if prefix_length is None else PrefixLengths.parse(prefix_length),
            against_exact,
            is_sketch,
            keep_count,
            is_levels,
            None if window_bounds is None else _bounds(window_bounds),
        )
        return command(asked=asked, **others)

    return with_options


def _bounds(text: str) -> Bounds:
    words = text.split(",")
    if len(words) == 2:
        shortest, longest = (round(parse_seconds(word, "--window-bounds") * 1e9) for word in words)
        if 10_000_000 <= shortest <= longest <= 3600 * 10**9:
            return Bounds(shortest, longest)
    raise UsageError(
        "--window-bounds", f"{text!r}", "two lengths from 10 ms to 1 hour, such as 50ms,10s"
    )


class Aggregations:
    """The aggregations of one run.

    Args:
        asked: which.
        length_ns: length of a window, at the start.
        folder: where the levels are stored; nowhere if it is None.
        interface_names: names by what `keys.KEY` has in ``interface``.

    Raises:
        UsageError: the length of the windows does not go with them.
        MeasurementError: a folder of the levels cannot be made.
    """

    def __init__(
        self,
        asked: Asked,
        length_ns: int,
        folder: Path | None,
        interface_names: Mapping[int, str],
    ) -> None:
        longest_ns = length_ns
        if asked.bounds is not None:
            longest_ns = asked.bounds.longest_ns
            if not asked.bounds.shortest_ns <= length_ns <= longest_ns:
                raise UsageError("--window", f"{length_ns / 1e9} s", "one within --window-bounds")
        if asked.is_levels and longest_ns > min(LEVELS.values()):
            raise UsageError("--levels", f"windows of up to {longest_ns / 1e9} s", "1 s at most")
        self._asked = asked
        self._names = interface_names
        self._seed = sketch.new_seed()
        self._top = None if asked.keep_count is None else TopFlows(asked.keep_count)
        self._levels = Levels() if asked.is_levels else None
        self._stores = {
            name: WindowStore(folder / name, interface_names)
            for name in LEVELS
            if folder is not None and asked.is_levels
        }
        self._sums: dict[str, Total] = dict.fromkeys(LEVELS, Total())
        self._periods: Counter[str] = Counter()
        self._lengths_ns: Counter[int] = Counter()

    def definitions(self) -> dict[str, int]:
        """Return what the program is to be compiled with."""
        defined: dict[str, int] = {}
        if self._asked.prefix_lengths is not None:
            defined |= self._asked.prefix_lengths.definitions()
        if self._asked.is_against_exact:
            defined["EXACT_FLOWS"] = prefixes.EXACT_FLOWS
        if self._asked.is_sketch:
            defined["SKETCH_SEED"] = self._seed
        return defined

    def add(self, window: Window) -> None:
        """Take in a window, in the order of time.

        Raises:
            MeasurementError: a level's packets are not accounted for, or it cannot be stored.
        """
        self._lengths_ns[window.length_ns] += 1
        if self._top is not None:
            self._top.add(window.flows)
        if self._levels is not None:
            self._keep(self._levels.add(window))

    def finish(self) -> None:
        """Take in that there is nothing more.

        Raises:
            MeasurementError: as `add`.
        """
        if self._levels is not None:
            self._keep(self._levels.finish())
        for store in self._stores.values():
            store.flush()

    def _keep(self, periods: list[tuple[str, Window]]) -> None:
        for name, period in periods:
            period.terms.check(f"level {name}")
            self._sums[name] = self._sums[name].plus(period.terms.drained)
            self._periods[name] += 1
            if name in self._stores:
                self._stores[name].add(period)

    def largest_flows(self) -> Array | None:
        """Return the flows that were kept, rows of `keys.TABLE`; None if that was not asked for."""
        return None if self._top is None else self._top.flows()[0]

    def fields(
        self, program: Program, exact: Array | None, drained: Total, times: KernelTimes
    ) -> dict[str, Any]:
        """Return what was found, as it stands in the JSON document.

        Args:
            program: the counting program, detached.
            exact: the flows of the run, rows of `keys.TABLE`; None if they were not summed, and
                nothing can be measured against them.
            drained: what all windows held.
            times: for kernel times.
        """
        found: dict[str, Any] = {}
        lengths = self._asked.prefix_lengths
        if lengths is not None:
            found["prefix_length"] = lengths._asdict()
            if self._asked.is_against_exact and exact is not None:
                flows, unchecked = prefixes.exact_flows(program)
                difference = prefixes.compare(lengths, exact, flows, unchecked)
                found["prefix_length"] |= difference.fields()
        if self._asked.is_sketch and exact is not None:
            found["sketch"] = Sketch.read(program, self._seed).against(exact)
        if self._top is not None:
            found["top"] = _top_fields(self._top, exact, self._names, times)
        if self._levels is not None:
            found["levels"] = [
                {
                    "level": name,
                    "length_seconds": length_ns / 1e9,
                    "windows": self._periods[name],
                    "packets": self._sums[name].packets,
                    "bytes": self._sums[name].bytes,
                    "difference_packets": self._sums[name].packets - drained.packets,
                    "difference_bytes": self._sums[name].bytes - drained.bytes,
                }
                for name, length_ns in LEVELS.items()
            ]
        if self._asked.bounds is not None:
            found["window_lengths"] = [
                {"length_seconds": length_ns / 1e9, "windows": count}
                for length_ns, count in sorted(self._lengths_ns.items())
            ]
        return found


def _top_fields(
    top: TopFlows, exact: Array | None, names: Mapping[int, str], times: KernelTimes
) -> dict[str, Any]:
    flows, missed = top.flows()
    rows = summary.flow_fields(flows, names, times)
    return {
        "room_flows": top.room,
        "kept_flows": len(flows),
        "bound_bytes": top.bound_bytes,
        "error_bytes": top.error_bytes,
        **({} if exact is None else top.against(exact)),
        "flows": [
            row | {"missed_at_most_bytes": int(most)}
            for row, most in zip(rows, missed, strict=True)
        ],
        "rest": [
            {
                "direction": DIRECTIONS[direction],
                "protocol": protocol,
                "packets": total.packets,
                "bytes": total.bytes,
            }
            for (direction, protocol), total in top.rest().items()
        ],
    }


def lines(fields: Mapping[str, Any]) -> list[str]:
    """Return what `Aggregations.fields` found, for people."""
    found = []
    if (prefix := fields.get("prefix_length")) is not None:
        line = f"prefixes: /{prefix['ipv4']}, /{prefix['ipv6']}"
        if "prefixes" in prefix:
            line += (
                f": {prefix['prefixes']:,} pairs of {prefix['exact_flows']:,} flows; they differ "
                f"by {prefix['difference_packets']:,} packets, {prefix['difference_bytes']:,} "
                f"bytes (at most {prefix['bound_packets']:,}, {prefix['bound_bytes']:,})"
            )
        found.append(line)
    if (estimated := fields.get("sketch")) is not None:
        found += [
            f"sketch {estimated['rows']} x {estimated['width']}, {unit}: at most "
            f"{estimated[f'bound_{unit}']:,.1f} too many for all but "
            f"{estimated['probability_above_bound']:.1%} of the flows; worst "
            f"{estimated[f'worst_error_{unit}']:,}, mean {estimated[f'mean_error_{unit}']:,.3f}, "
            f"above the bound {estimated[f'flows_above_bound_{unit}']:,} of {estimated['flows']:,}"
            for unit in ("packets", "bytes")
        ]
    if (top := fields.get("top")) is not None:
        found.append(
            f"largest flows: {top['kept_flows']:,} kept, each with at most {top['error_bytes']:,} "
            f"bytes missed (bound {top['bound_bytes']:,})"
            + (
                f"; worst {top['worst_error_bytes']:,}, mean {top['mean_error_bytes']:,.1f}; the "
                f"largest not kept had {top['largest_missing_bytes']:,}"
                if "worst_error_bytes" in top
                else ""
            )
        )
        found += [
            f"  rest: {part['direction']} {summary.protocol_name(part['protocol'])}, "
            f"{part['packets']:,} packets, {part['bytes']:,} bytes"
            for part in top["rest"]
        ]
    found += [
        f"level {level['level']}: {level['windows']:,} windows, {level['packets']:,} packets, "
        f"{level['bytes']:,} bytes; differs by {level['difference_packets']:,}, "
        f"{level['difference_bytes']:,}"
        for level in fields.get("levels", ())
    ]
    found += [
        f"windows of {entry['length_seconds']:g} s: {entry['windows']:,}"
        for entry in fields.get("window_lengths", ())
    ]
    return found
