"""A run's figures as a person reads them: on a terminal drawn over each second, at the end once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmeasure.flows import keys, summary
from perfmeasure.flows.keys import DIRECTIONS, Total, address_text
from perfmeasure.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfmeasure.flows.accounting import Terms
    from perfmeasure.flows.bpfcall import ProgramStatistics
    from perfmeasure.flows.counter import HookCount
    from perfmeasure.flows.keys import Array
    from perfmeasure.flows.summary import Reduction, Service


@dataclass(frozen=True)
class Report:
    """What is shown of a second, or of a whole run."""

    flows: Array
    """Rows of `keys.TABLE`, one a flow."""
    seconds: float
    """The time that ``flows`` are of."""
    terms: Terms
    reduction: Reduction
    programs: Mapping[str, ProgramStatistics]
    top_count: int
    services: tuple[Service, ...] = ()
    """With the service key, shown instead of the flows."""
    hooks: tuple[HookCount, ...] = ()
    """Known at the end."""
    overflow: Mapping[tuple[int, int], Total] | None = None

    def text(self) -> str:
        """Return all of it."""
        parts = [self._sums()]
        parts.append(self._services() if self.services else self._talkers())
        parts += [self._reduction(), self._accounting()]
        return "\n\n".join("\n".join(part) for part in parts)

    def _sums(self) -> list[str]:
        count, total = len(self.flows), keys.total(self.flows)
        per_flow = [part / max(count, 1) for part in total]
        per_second = [part / self.seconds if self.seconds else 0.0 for part in total]
        packets = (
            f"Packets: {total.packets:,} (avg {per_flow[0]:,.1f} per flow), "
            f"{per_second[0]:,.0f} per second"
        )
        size = (
            f"Bytes: {total.bytes:,} (avg {per_flow[1]:,.1f} per flow), "
            f"{format_bytes(per_second[1])} per second"
        )
        return ["=== Aggregated Flow Summary ===", f"Flows: {count:,}", packets, size]

    def _talkers(self) -> list[str]:
        rows = [
            (
                address_text(row["src_ip"].tobytes()),
                address_text(row["dst_ip"].tobytes()),
                str(row["dst_port"]),
                str(row["packets"]),
                str(row["bytes"]),
            )
            for row in summary.top(self.flows, self.top_count)
        ]
        head = ("SRC_IP", "DST_IP", "PORT", "PACKETS", "BYTES")
        least = (15, 15, 6, 10, 5)
        widths = [
            max(width, *(len(row[column]) for row in [head, *rows]))
            for column, width in enumerate(least)
        ]
        lines = [
            " ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        title = f"=== Top {self.top_count} Flows by Packets ==="
        return [title, lines[0], "=" * 55, *lines[1:]]

    def _services(self) -> list[str]:
        shown = [service.line() for service in self.services[: self.top_count]]
        return [f"=== Top {self.top_count} Services by Connects ===", *shown]

    def _reduction(self) -> list[str]:
        reduction = self.reduction
        raw, aggregated = (
            f"{format_bytes(rate)} per second of {size} bytes each"
            for rate, size in (
                (reduction.raw_bytes_per_second, summary.RAW_RECORD_BYTES),
                (reduction.aggregated_bytes_per_second, summary.SUMMARY_BYTES),
            )
        )
        return [
            "=== Event Reduction ===",
            f"Raw events: {reduction.packets:,} ({raw})",
            f"Aggregated summaries: {reduction.summaries:,} ({aggregated})",
            f"Reduction ratio: {reduction.ratio:,.1f}x",
        ]

    def _accounting(self) -> list[str]:
        lines = ["=== Accounting ===", f"{'':10}{'PACKETS':>18}{'BYTES':>22}"]
        fields = self.terms.fields()
        for name in ("seen", "drained", "full", "late", "unparsed"):
            numbers = fields[f"{name}_packets"], fields[f"{name}_bytes"]
            lines.append(f"{name:10}{numbers[0]:>18,}{numbers[1]:>22,}")
        for (direction, protocol), total in sorted((self.overflow or {}).items()):
            lines.append(
                f"no room: {DIRECTIONS[direction]} {summary.protocol_name(protocol)}, "
                f"{total.packets:,} packets, {total.bytes:,} bytes"
            )
        lines += _hook_lines(self.hooks)
        for name, run in self.programs.items():
            if run.run_count:
                mean_ns = run.run_time_ns / run.run_count
                lines.append(f"{name}: {mean_ns:.0f} ns per run, {run.run_count:,} runs")
        return lines


def _hook_lines(hooks: Iterable[HookCount]) -> list[str]:
    return [
        f"{count.hook.interface} {DIRECTIONS[count.hook.direction]}: "
        f"{count.seen.packets:,} packets, {count.seen.bytes:,} bytes; the interface itself: "
        f"{count.interface.packets:,}, {count.interface.bytes:,}"
        for count in hooks
    ]
