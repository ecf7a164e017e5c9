"""Logs of every kind, and every sort of damage that a disk, a copy or a crash does to one.

`Corpus` holds whole logs as lists of lines, by kind; `damage` spoils some lines of one.
Everything is drawn from the generator of random numbers that is given, so a seed says it all.
"""

from __future__ import annotations

import lzma
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.analysis.conftest import Lines

_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d{10}\.\d\d)(\d{4})? ", re.MULTILINE)
_BLOCK_BYTES = 512  # what a disk writes at once


class Corpus:
    """Logs by kind: real ones, and what real ones do not hold, made in their form."""

    def __init__(self, fixtures: Path, lines: type[Lines]) -> None:
        tgen = [path.read_bytes() for path in sorted(fixtures.glob("tgen/*.tgen.log"))]
        run = {
            name: lzma.decompress((fixtures / f"onionperf-run/{name}.log.xz").read_bytes())
            for name in (
                "tgen-client.onionperf.tgen",
                "tgen-server.onionperf.tgen",
                "tor-client.onionperf.torctl",
            )
        }
        conflux = _thinned(run["tor-client.onionperf.torctl"])
        conflux_lf = conflux.replace(b"\r", b"")
        sample = (fixtures / "torctl/sample_400lines.torctl.log").read_bytes()
        old_tgen = (fixtures / "old-tgen/2019.tgen.log").read_bytes()
        of_2015 = (fixtures / "old-tgen/2015.tgen.log").read_bytes()
        answered = (fixtures / "old-tgen/server.tgen.log").read_bytes()
        own_tgen, own_torctl = _own(lines)
        self.logs: dict[str, list[list[bytes]]] = {
            "tgen 1.x": [_cut(log) for log in (*tgen, run["tgen-client.onionperf.tgen"])],
            "tgen 1.x server": [_cut(run["tgen-server.onionperf.tgen"])],
            "tgen 2016": [_cut(_old_run(old_tgen) + answered)],
            "tgen 2015": [_cut(_run_of_2015(of_2015))],
            "tgen own": [_cut(own_tgen)],
            "torctl CRLF": [_cut(sample), _cut(conflux)],
            "torctl LF": [_cut(_long_stamps(sample.replace(b"\r", b""))), _cut(conflux_lf)],
            "torctl 0.2": [_cut(_tor_02())],
            "torctl own": [_cut(own_torctl)],
        }


def _cut(log: bytes) -> list[bytes]:
    return [line + b"\n" for line in log.removesuffix(b"\n").split(b"\n")]


def _thinned(torctl: bytes) -> bytes:
    """Leave out most of what is not used, so that the mutations hit what is."""
    lines = torctl.splitlines(keepends=True)
    bulk = (b" 650 CIRC_BW ", b" 650 CONN_BW ", b" 650 CELL_STATS ")
    return b"".join(
        line
        for number, line in enumerate(lines)
        if number % 200 == 0 or (line[:2] == b"20" and not any(word in line for word in bulk))
    )


def _long_stamps(torctl: bytes) -> bytes:
    return _STAMP.sub(lambda match: match[1] + b"0137 ", torctl)


def _old_run(log: bytes) -> bytes:
    """Make a run of a program of 2016 to 2020 from single lines of one, with failures."""
    initializing, heartbeat, complete, error = log.splitlines(keepends=True)
    run = [initializing]
    for count in range(1, 13):
        begin = 1548947000 + 300 * count
        run += [
            _moved(_status(complete, part * 524288), count, begin + part)
            for part in range(0, 11, 2)
        ]
        run.append(heartbeat.replace(b"1548947121", b"%d" % (begin + 12)))
        run.append(_moved(complete if count % 4 else error, count, begin + 25))
    return b"".join(run)


def _status(complete: bytes, done: int) -> bytes:
    text = complete[: complete.index(b" usecs-to")].replace(b"-complete]", b"-status]")
    return (
        text.replace(b"5242880/5242880 (100.00%)", b"%d/5242880 (%.2f%%)" % (done, done / 52428.8))
        + b"\n"
    )


def _moved(line: bytes, count: int, ts: int) -> bytes:
    line = re.sub(rb" \d{10}\.", b" %d." % ts, line, count=1)
    line = re.sub(rb"transfer5m,\d+,", b"transfer5m,%d," % count, line)
    return re.sub(rb":(?:36384|46878),", b":%d," % (30000 + count), line, count=1)


def _run_of_2015(log: bytes) -> bytes:
    complete = log.splitlines(keepends=True)[0]
    error = complete[: complete.index(b" msecs-to")].replace(b"-complete]", b"-error]")
    error = error.replace(b"SUCCESS-error=NONE", b"ERROR-error=TIMEOUT") + b"\n"
    status = complete[: complete.index(b" msecs-to")].replace(b"-complete]", b"-status]") + b"\n"
    run = []
    for count in range(1, 13):
        begin = 1435228400 + 100 * count
        for line, after in ((status, 5), (status, 9), (complete if count % 4 else error, 20)):
            part = b"%d/1048576 (%.2f%%)" % (after * 50000, after * 50000 / 10485.76)
            text = line.replace(b"1048576/1048576 (100.00%)", part) if line is status else line
            text = re.sub(rb" \d{10}\.", b" %d." % (begin + after), text, count=1)
            run.append(text.replace(b"(1-vagrant", b"(%d-vagrant" % count))
    return b"".join(run)


def _tor_02() -> bytes:
    """Write events as tor 0.2 did: without keywords, relays named by ``=``."""
    hops = [f"${letter * 40}{sep}{name}" for letter, sep, name in (
        ("A", "=", "guard"), ("B", "~", "middle"), ("C", "=", "exit"),
    )]  # fmt: skip
    events: list[tuple[float, str]] = []
    for number in range(4, 24):
        begin = 1456703000 + 10 * number
        events += [(begin, f"CIRC {number} LAUNCHED")]
        events += [
            (begin + n / 4, f"CIRC {number} EXTENDED {','.join(hops[:n])}") for n in (1, 2, 3)
        ]
        events += [
            (begin + 0.8, f"CIRC {number} BUILT {','.join(hops)}"),
            (begin + 1, f"STREAM {number} NEW 0 216.17.99.183:6666"),
            (begin + 1, f"STREAM {number} SENTCONNECT {number} 216.17.99.183:6666"),
            (begin + 2, "BW 1000 2000"),
            (begin + 2.3, f"STREAM {number} SUCCEEDED {number} 216.17.99.183:6666"),
            (begin + 4, f"STREAM {number} CLOSED {number} 216.17.99.183:6666"),
            (begin + 6, f"CIRC {number} CLOSED {','.join(hops)}"),
        ]
    return b"".join(f"2016-02-28 23:59:51 {ts:.2f} 650 {text}\r\n".encode() for ts, text in events)


def _own(lines: type[Lines]) -> tuple[bytes, bytes]:
    """Write the logs of a perfmeasure run with clock pairs, a gap, lost entries and a restart."""
    tgen, torctl = [lines.initializing(0)], []
    torctl.append(
        lines.note(
            0, "Starting torctl program on host vm using Tor version 0.4.9.11 status=recommended"
        )
    )
    step = 0.0
    for number in range(20):
        begin = 10 + 60.0 * number
        if number == 12:
            step = -30.25  # the clock was set
        now = lines.day + begin + step
        pair = f"utc_ns={round(now * 1e9)} monotonic_ns={round((begin + 99) * 1e9)} reason=minute"
        tgen.append(lines.note(begin + step, f"[message] [clock] [clock_pair] [clock] {pair}"))
        torctl.append(lines.note(begin + step, f"[CLOCK] {pair}"))
        if number == 15:
            tgen.append(lines.initializing(begin + step))
            torctl.append(lines.note(begin + step, "[GAP] control connection lost: it was closed"))
            torctl.append(
                lines.note(
                    begin + step + 0.5, "[GAP] control connection back after 0.500000 seconds"
                )
            )
            torctl.append(
                lines.note(
                    begin + step + 0.5, "[LOST] 7 entries were not written: No space left on device"
                )
            )
        at, port, count = begin + step, 5000 + number, number % 15
        tgen.append(lines.created(at + 1, count, port))
        tgen += [lines.status(at + 1 + part, count, port, 100 * part) for part in (1, 4, 7, 9)]
        error = "NONE" if number % 5 else "TIMEOUT"
        tgen.append(lines.outcome(at + 1, at + 12, count, port, error=error))
        torctl.append(_tor_events(lines, at, number))
    return "".join(tgen).encode(), "".join(torctl).encode()


def _tor_events(lines: type[Lines], at: float, number: int) -> str:
    guard, circuit = f"${'A' * 40}~a", number % 15 + 1
    connection = ("LAUNCHED", "CONNECTED", "CLOSED")[number % 3]
    timeout = (
        f"TOTAL_TIMES=20 TIMEOUT_MS={1500 + number} XM=46 ALPHA=5.860938 CUTOFF_QUANTILE=0.800000 "
        "TIMEOUT_RATE=0.000000 CLOSE_MS=60000 CLOSE_RATE=0.000000"
    )
    return (
        lines.circuit_events(at, circuit)
        + lines.event(at + 0.5, f"BUILDTIMEOUT_SET COMPUTED {timeout}")
        + lines.event(
            at + 0.6, f"GUARD ENTRY {guard} {('NEW', 'UP', 'DOWN', 'DROPPED')[number % 4]}"
        )
        + lines.event(at + 0.7, f"ORCONN {guard} {connection} ID={number // 3}")
        + lines.stream_events(at + 1, at + 12, circuit, 5000 + number, circuit)
        + lines.event(at + 13, "BW 10 20")
    )


# ---- damage -------------------------------------------------------------------------------------

Log = list[bytes]


def _flip(line: bytes, rng: random.Random) -> bytes:
    changed = bytearray(line)
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(line: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(line)), rng.randint(1, 40)
    filler = rng.choice((b"\0", b"\xff", b"0", b"9", b" ", b",", b"]", b'"', b"="))
    return line[:at] + (filler * count)[: len(line) - at] + line[at + count :]


def _digit(line: bytes, rng: random.Random) -> bytes:
    places = [at for at, byte in enumerate(line) if 48 <= byte <= 57] or [0]
    at = rng.choice(places)
    return (
        line[:at]
        + rng.choice((b"", b"%d" % rng.randrange(10), b"00", b"_", b"-", b"."))
        + line[at + 1 :]
    )


def _insert(line: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(line) + 1)
    return (
        line[:at]
        + rng.choice(
            (rng.randbytes(rng.randint(1, 30)), b",", b" ", b"=", b"\r", b"]", b"\xc3\xa9")
        )
        + line[at:]
    )


def _delete(line: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(line))
    return line[:at] + line[at + rng.choice((1, 1, 3, 20, 100)) :]


def _duplicate(line: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(line))
    return line[: at + rng.choice((1, 5, 50))] + line[at:]


def _cut_line(line: bytes, rng: random.Random) -> bytes:
    return line[: rng.randrange(len(line))] + rng.choice((b"", b"\n", b"\r\n"))


def _cut_front(line: bytes, rng: random.Random) -> bytes:
    return line[rng.randrange(len(line)) :]


IN_A_LINE: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _overwrite, _digit, _insert, _delete, _duplicate, _cut_line, _cut_front,
)  # fmt: skip


def _swap(log: Log, at: int, rng: random.Random) -> None:
    other = min(len(log) - 1, at + rng.choice((1, 1, 1, 2, 3, 10)))
    log[at], log[other] = log[other], log[at]


def _repeat(log: Log, at: int, rng: random.Random) -> None:
    log[at:at] = log[at : at + rng.choice((1, 1, 5))]


def _leave_out(log: Log, at: int, rng: random.Random) -> None:
    del log[at : at + rng.choice((1, 1, 5))]


def _join(log: Log, at: int, _rng: random.Random) -> None:
    log[at] = log[at].rstrip(b"\r\n")


def _interleave(log: Log, at: int, rng: random.Random) -> None:
    """Write one line into another, with its line feed or without."""
    other = min(len(log) - 1, at + 1)
    if other == at:
        return
    within = rng.randrange(len(log[at]))
    inner = log[other] if rng.random() < 0.5 else log[other].rstrip(b"\r\n")
    log[at : other + 1] = [log[at][:within] + inner + log[at][within:]]


def _splice(log: Log, at: int, rng: random.Random) -> None:
    """Lose what lies between two places, as a disk does that did not write a block."""
    other = min(len(log) - 1, at + rng.choice((1, 1, 2, 9)))
    begin, end = rng.randrange(len(log[at])), rng.randrange(len(log[other]))
    log[at : other + 1] = [log[at][:begin] + log[other][end:]]


def _lose_block(log: Log, at: int, rng: random.Random) -> None:
    """Lose a block at its boundaries, or find zeros in its place."""
    text = b"".join(log[at:])
    if len(text) > 2 * _BLOCK_BYTES:
        begin = rng.randrange(len(text) // _BLOCK_BYTES) * _BLOCK_BYTES
        fill = b"\0" * _BLOCK_BYTES if rng.random() < 0.5 else b""
        text = text[:begin] + fill + text[begin + _BLOCK_BYTES :]
    log[at:] = _cut(text)


AMONG_LINES: tuple[Callable[[Log, int, random.Random], None], ...] = (
    _swap, _repeat, _leave_out, _join, _interleave, _splice, _lose_block,
)  # fmt: skip


def damage(log: Log, rng: random.Random) -> tuple[Log, list[str]]:
    """Return a spoilt copy of a log, and the names of what was done to it."""
    log = list(log)
    done = []
    for _ in range(rng.randint(1, 1 + len(log) // 4)):
        at = rng.randrange(len(log)) if log else 0
        if not log or not log[at]:
            continue
        if rng.random() < 0.6:
            one = rng.choice(IN_A_LINE)
            log[at] = one(log[at], rng)
            done.append(one.__name__.strip("_"))
        else:
            many = rng.choice(AMONG_LINES)
            many(log, at, rng)
            done.append(many.__name__.strip("_"))
    return log, done
