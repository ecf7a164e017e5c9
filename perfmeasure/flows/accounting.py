"""The conservation law: every packet that was seen is drained, full, late or unparsed.

Each of the five terms has a counter of its own, in packets and in bytes. `drained` is what user
space found in the tables, the others are the kernel's (``bpf/records.h``). A law that does not hold
means that the counting itself is wrong, and so ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from perfmeasure.errors import MeasurementError
from perfmeasure.flows.keys import Total

_NONE = Total()


@dataclass(frozen=True)
class Terms:
    """The terms of the law, for one window or for several."""

    seen: Total = _NONE
    """What passed the hooks."""
    drained: Total = _NONE
    """What the tables held."""
    full: Total = _NONE
    """What found no room in the table."""
    late: Total = _NONE
    """What came in a window that no table was armed for, because the drainer lagged."""
    unparsed: Total = _NONE
    """What no key could be made of."""

    def plus(self, other: Terms) -> Terms:
        """Return the sum of both, term by term."""
        return Terms(*(getattr(self, f.name).plus(getattr(other, f.name)) for f in fields(self)))

    def with_drained(self, drained: Total) -> Terms:
        """Return the same with what was drained."""
        return replace(self, drained=drained)

    def missing(self) -> Total:
        """Return seen minus all the others: zero where the law holds."""
        others = (self.drained, self.full, self.late, self.unparsed)
        return Total(
            self.seen.packets - sum(term.packets for term in others),
            self.seen.bytes - sum(term.bytes for term in others),
        )

    def check(self, where: str) -> None:
        """Return if the law holds.

        Args:
            where: the window, or ``all windows``.

        Raises:
            MeasurementError: it does not; the message has all terms.
        """
        missing = self.missing()
        if missing == _NONE:
            return
        said = ", ".join(
            f"{f.name} {getattr(self, f.name).packets} ({getattr(self, f.name).bytes} bytes)"
            for f in fields(self)
        )
        raise MeasurementError(
            where,
            f"packets are not accounted for: {said}; {missing.packets} packets and "
            f"{missing.bytes} bytes differ",
            "seen = drained + full + late + unparsed",
            "do not use these counts, and report this, please",
        )

    def fields(self) -> dict[str, int]:
        """Return ``seen_packets``, ``drained_packets``, …, then the same ending in ``_bytes``."""
        names = [f.name for f in fields(self)]
        return {
            f"{name}_{unit}": getattr(getattr(self, name), unit)
            for unit in ("packets", "bytes")
            for name in names
        }
