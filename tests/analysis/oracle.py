"""Reads logs slowly and strictly, to hold a database against what the lines themselves say.

Written from docs/formats.md; it shares nothing with the parsers. A line counts only if all of it
follows the grammar; what it says is a fact. `Oracle.faults` asks of each record, and of each number
in it, for a fact that says so. Which of the lines under one number belong together is a matter of
the order (restarts, numbers used again), which is not judged here.
"""

from __future__ import annotations

import collections
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
_LEVEL = (
    r"\[(?:message|info|debug|warning|error|critical)\] "
    r"(?:\[[A-Za-z0-9_.:-]+\] )?\[[A-Za-z0-9_]+\] "
)
_TGEN = _DATE + r"(?P<ts>\d{9,10}\.(?:\d{6}|\d\d)) " + _LEVEL
_NAME = r"[^,\[\]]+"
_WORD = r"[A-Z][A-Z0-9_]*"
_SIZE = r"\d{1,15}"
_TIME = r"-?\d{1,15}"
_ENDPOINT = r"[^,\[\]]+:\d{1,5}"
_PERCENT = r"(?:\d{1,9}\.\d\d%|\?%?)"
_MARKS = (10240, 20480, 51200, 102400, 204800, 512000, 1048576, 2097152, 5242880)
_STEPS = (
    "socket-create", "socket-connect", "proxy-init", "proxy-choice", "proxy-request",
    "proxy-response", "command", "response",
)  # fmt: skip
_PAYLOAD_STEPS = ("first-byte", "last-byte", "checksum")


def _section(section: str, fields: dict[str, str]) -> str:
    """Return the shape of a section; later programs may write more, but not in ``bytes``."""
    other = rf"(?!(?:{'|'.join(fields)})=)[a-z][a-z-]*=[^,\[\]]+"
    before, after = ("", "") if section == "bytes" else (f"(?:{other},)*", f"(?:,{other})*")
    pairs = ",".join(f"{before}{name}={pattern}" for name, pattern in fields.items())
    return rf"\[(?P<{section}>{pairs}{after})\]"


_TRANSPORT = _section("transport", {
    "fd": r"-?\d{1,9}", "local": _ENDPOINT, "proxy": _ENDPOINT, "remote": _ENDPOINT,
    "state": _WORD, "error": _WORD,
})  # fmt: skip
_STREAM = _section("stream", {
    "id": _SIZE, "vertexid": _NAME, "name": _NAME, "peername": _NAME, "sendsize": _SIZE,
    "recvsize": _SIZE, "sendstate": _WORD, "recvstate": _WORD, "error": _WORD,
})  # fmt: skip
_BYTES = _section("bytes", {
    "total-bytes-recv": _SIZE, "total-bytes-send": _SIZE, "payload-bytes-recv": _SIZE,
    "payload-bytes-send": _SIZE, "payload-progress-recv": _PERCENT,
    "payload-progress-send": _PERCENT,
})  # fmt: skip
_TIMES = _section("times", {
    "created-ts": _TIME,
    **{f"usecs-to-{step}": _TIME for step in _STEPS},
    **{f"usecs-to-{step}-{way}": _TIME for way in ("recv", "send") for step in _PAYLOAD_STEPS},
    "now-ts": _TIME,
})  # fmt: skip
_NEW_LINE = re.compile(
    _TGEN + rf"\[stream-(?P<word>status|success|error)\] transport {_TRANSPORT} stream {_STREAM}"
    rf" bytes {_BYTES}(?: times {_TIMES})?"
)
_CREATED = re.compile(_TGEN + rf"Created new stream {_STREAM} on transport {_TRANSPORT}")
_INITIALIZING = re.compile(
    _TGEN
    + r"Initializing (?P<program>traffic generator|\S+ v\S+) (?:[^\[\]:]* )?on host (?P<host>\S+)"
    r" (?:with )?process id \d+"
)
_CLOCK = r"utc_ns=(?P<utc>\d{1,19}) monotonic_ns=\d{1,19} reason=(?:start|minute|step)"
_TGEN_CLOCK = re.compile(_TGEN + r"\[clock_pair\] \[clock\] " + _CLOCK)

_OLD_PEER = r"[^:,\s]*:[^:,\s]*:\d{1,5}"
_OLD_TRANSPORT = re.compile(
    rf"(?:TCP|UDP|PIPE|SOCKETPAIR|NONE),-?\d{{1,9}},{_OLD_PEER},{_OLD_PEER},{_OLD_PEER},state={_WORD},error={_WORD}"
    rf"|\(TCP--?\d{{1,9}}-(?:{_OLD_PEER}-)?{_OLD_PEER}\)"
)
_OLD_TRANSFER = re.compile(
    rf"[^\[\]%]+,\d{{1,15}},[^\[\]%]*,[A-Z]+,\d{{1,15}},[^\[\]%]*,\d{{1,15}},state={_WORD},error={_WORD}"
    rf"|\(\d{{1,15}}-[^\[\]%]*-[A-Z]+-\d{{1,15}}-[^\[\]%]*-\d{{1,15}}-state={_WORD}-error={_WORD}\)"
)
_OLD_PAYLOAD = (
    r"(?: payload-bytes-{0}=(?P<{0}>\d{{1,15}})/\d{{1,15}}"
    r" \((?P<{0}_percent>-?nan|\d{{1,9}}\.\d\d)%\))?"
)
_OLD_TIMES = {
    unit: "".join(f" {unit}-to-{step}={_TIME}" for step in steps)
    for unit, steps in (
        ("usecs", (*_STEPS, *_PAYLOAD_STEPS)),
        ("msecs", (*_STEPS[6:], *_PAYLOAD_STEPS)),
    )
}
_OLD_LINE = re.compile(
    _TGEN + r"\[transfer-(?P<word>status|complete|error)\] transport (?P<transport>\S+)"
    r" transfer (?P<transfer>.+) total-bytes-read=(?P<total_read>\d{1,15})"
    r" total-bytes-write=(?P<total_write>\d{1,15})"
    + _OLD_PAYLOAD.format("read") + _OLD_PAYLOAD.format("write")
    + f"(?P<times>{_OLD_TIMES['usecs']}|{_OLD_TIMES['msecs']})?"
)  # fmt: skip

_TORCTL = _DATE + r"(?P<ts>\d{9,10}\.(?:\d{6}|\d\d)) "
_HOP = r"\$[0-9A-Fa-f]{40}(?:[~=]\w{1,19})?"
_PAIR = r' [A-Z][A-Z0-9_]*=(?:"(?:[^"\\]|\\.)*"|[^ "]*)'
_PATH = rf"(?: (?P<path>{_HOP}(?:,{_HOP})*))?"
_EVENT = {
    name: re.compile(rf"{_TORCTL}650 {name} {pattern}(?P<pairs>(?:{_PAIR})*)", re.ASCII)
    for name, pattern in {
        "STREAM": r"(?P<number>\d{1,15}) (?P<status>NEW|NEWRESOLVE|REMAP|SENTCONNECT|SENTRESOLVE|"
        r"SUCCEEDED|FAILED|CLOSED|DETACHED|CONTROLLER_WAIT|XO(?:FF|N)_(?:SENT|RECV))"
        r" (?P<circuit>\d{1,15}) (?P<target>[^\s\"=]*:\d{1,5})",
        "CIRC": r"(?P<number>\d{1,15})"
        rf" (?P<status>LAUNCHED|BUILT|GUARD_WAIT|EXTENDED|FAILED|CLOSED){_PATH}",
        "CIRC_MINOR": rf"(?P<number>\d{{1,15}}) (?P<status>PURPOSE_CHANGED|CANNIBALIZED){_PATH}",
        "BW": r"(?P<read>\d{1,15}) (?P<written>\d{1,15})",
        "BUILDTIMEOUT_SET": r"(?P<kind>COMPUTED|RESET|SUSPENDED|DISCARD|RESUME)",
        "GUARD": rf"(?P<kind>[A-Z]+) (?P<hop>{_HOP})"
        r" (?P<status>NEW|UP|DOWN|DROPPED|BAD|GOOD|BAD_L2|GOOD_L2)",
        "ORCONN": r"(?P<endpoint>[^\s\"]+) (?P<status>NEW|LAUNCHED|CONNECTED|FAILED|CLOSED)",
    }.items()
}
# What a value that is used has to look like.
_VALUES = {
    "PURPOSE": _WORD, "OLD_PURPOSE": _WORD, "REASON": _WORD, "REMOTE_REASON": _WORD,
    "HS_STATE": _WORD, "REND_QUERY": r"[a-z2-7]+", "SOURCE_ADDR": r"\S+:\d{1,5}",
    "TIME_CREATED": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?", "CONFLUX_ID": r"[0-9A-F]+",
    "TIMEOUT_MS": r"\d{1,15}", "CUTOFF_QUANTILE": r"0\.\d{1,9}|1\.0{1,9}", "ID": r"\d{1,15}",
}  # fmt: skip
_GAP = re.compile(
    _TORCTL + r"(?:\[GAP\] control connection (?P<word>lost: .+|back after \d+\.\d{1,9} seconds)"
    r"|\[LOST\] (?P<lost>\d{1,15}) entries were not written: .+)"
)
_STARTING = re.compile(
    _TORCTL + r"Starting torctl program on host (?P<host>\S+) using Tor version (?P<version>\S+)"
    r" status=[a-z ]+"
)
_TORCTL_CLOCK = re.compile(_TORCTL + r"\[CLOCK\] " + _CLOCK)
_INNER = re.compile(r"\d-\d\d \d\d:\d\d:\d\d \d{9,10}\.")
_HIDDEN = {"HS_CLIENT_INTRO", "HS_CLIENT_REND", "HS_SERVICE_INTRO", "HS_SERVICE_REND"}
_NEAR_SECONDS = 2e-6

Fact = dict[str, Any]


def _fields(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (item.partition("=") for item in text.split(","))}


def _unix_ts(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _percent(text: str) -> float:
    return -1.0 if text[:1] == "?" or "nan" in text else float(text.rstrip("%"))


def _key(transport: dict[str, str], stream: dict[str, str]) -> tuple[str, ...]:
    return (
        *(transport[name] for name in ("fd", "local", "proxy", "remote")),
        stream["id"], stream["vertexid"],
    )  # fmt: skip


class Oracle:
    """The facts of one log. ``intact`` are the numbers (from 1) of the lines that say one."""

    def __init__(self, content: bytes) -> None:
        self.intact: set[int] = set()
        self.names: dict[str, set[str]] = collections.defaultdict(set)
        self.clocks: set[float] = set()
        self.lines: dict[tuple[str, ...], list[Fact]] = collections.defaultdict(list)
        self.old: list[Fact] = []
        self.events: dict[str, list[Fact]] = collections.defaultdict(list)
        self.gaps: list[Fact] = []
        self.shifts: list[float] = [0.0]
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                text = line.decode().rstrip("\r")
            except UnicodeDecodeError:
                continue
            if _INNER.search(text, 12):
                continue  # two lines in one
            if text.isprintable() and self._is_whole(text):
                self.intact.add(number)

    def _is_whole(self, text: str) -> bool:
        return self._tgen(text.rstrip(" ")) or self._note(text) or self._event(text)

    # ---- reading -------------------------------------------------------------------------------

    def _tgen(self, text: str) -> bool:
        if match := _NEW_LINE.fullmatch(text):
            times = _fields(match["times"]) if match["times"] else None
            if (match["word"] == "status") is (times is not None):
                return False
            if times and int(times["created-ts"]) > int(times["now-ts"]):
                return False
            return self._tgen_line(match, match["word"])
        if match := _CREATED.fullmatch(text):
            return self._tgen_line(match, "created")
        if match := _OLD_LINE.fullmatch(text):
            return self._old_line(match)
        if match := _INITIALIZING.fullmatch(text):
            self.names["host"].add(match["host"])
        elif match := _TGEN_CLOCK.fullmatch(text):
            self.clocks.add(int(match["utc"]) / 1e9)
        return match is not None

    def _tgen_line(self, match: re.Match[str], word: str) -> bool:
        groups = match.groupdict()
        fact: Fact = {"ts": float(match["ts"]), "word": word}
        for section in ("transport", "stream", "bytes", "times"):
            fact[section] = _fields(groups[section]) if groups.get(section) else None
            if fact[section] and len(fact[section]) <= groups[section].count(","):
                return False  # a field is there twice
        if size := fact["bytes"]:
            for way in ("recv", "send"):
                fact[way] = int(size[f"payload-bytes-{way}"])
                fact[f"{way}_percent"] = _percent(size[f"payload-progress-{way}"])
        self.lines[_key(fact["transport"], fact["stream"])].append(fact)
        return True

    def _old_line(self, match: re.Match[str]) -> bool:
        fact: Fact = {**match.groupdict(), "ts": float(match["ts"])}
        if not (
            _OLD_TRANSPORT.fullmatch(fact["transport"])
            and _OLD_TRANSFER.fullmatch(fact["transfer"])
            and (fact["read"] or fact["write"])
        ):
            return False
        # A status has no times, an outcome has, but for the failures of 2015.
        may_be_without = fact["word"] == "status" or (
            fact["word"] == "error" and fact["transport"].startswith("(")
        )
        if (fact["word"] == "status" and fact["times"]) or not (fact["times"] or may_be_without):
            return False
        steps = _old_steps(fact)
        if "checksum" in steps and steps["checksum"] < max(steps.values()):
            return False  # it is the last step, so digits are missing
        for way, name in (("recv", "read"), ("send", "write")):
            fact[way] = int(match[name] or 0)
            percent = match[f"{name}_percent"]
            fact[f"{way}_percent"] = _percent(percent) if percent else -1.0
        self.old.append(fact)
        return True

    def _note(self, text: str) -> bool:
        if match := _STARTING.fullmatch(text):
            self.names["host"].add(match["host"])
            self.names["version"].add(match["version"])
        elif match := _TORCTL_CLOCK.fullmatch(text):
            self.clocks.add(int(match["utc"]) / 1e9)
        elif match := _GAP.fullmatch(text):
            self.gaps.append({**match.groupdict(), "ts": float(match["ts"])})
        return match is not None

    def _event(self, text: str) -> bool:
        words = text.split(" ", 5)
        pattern = _EVENT.get(words[4]) if len(words) == 6 and words[3] == "650" else None
        match = pattern.fullmatch(text) if pattern and text.isascii() else None
        if match is None or " 650 " in words[5]:
            return False
        fact: Fact = {**match.groupdict(), "ts": float(match["ts"])}
        for pair in re.findall(_PAIR, match["pairs"]):
            key, _, value = pair[1:].partition("=")
            if key in fact or (key in _VALUES and not re.fullmatch(_VALUES[key], value, re.ASCII)):
                return False
            fact[key] = value
        if words[4] == "BUILDTIMEOUT_SET" and not {"TIMEOUT_MS", "CUTOFF_QUANTILE"} <= fact.keys():
            return False
        if "TIME_CREATED" in fact:
            fact["created"] = _unix_ts(fact["TIME_CREATED"])
            if fact["created"] is None:
                return False
        # A relay is named `$FINGERPRINT~name` in the database, also where an old tor wrote `=`.
        fact["hops"] = fact["path"].replace("=", "~").split(",") if fact.get("path") else []
        self.events[words[4]].append(fact)
        return True

    # ---- asking --------------------------------------------------------------------------------

    def faults(self, document: dict[str, Any]) -> Iterator[str]:
        """Yield what the database of this log says, and no line of it does."""
        for nickname, node in document["data"].items():
            steps = document["meta"]["sources"][nickname].get("clock_steps", [])
            yield from self._steps(steps)
            if nickname != "unknown" and nickname not in self.names["host"]:
                yield f"host {nickname}"
            versions = set(document["meta"]["sources"][nickname].get("tor_versions", ()))
            yield from (f"tor {version}" for version in versions - self.names["version"])
            for name, transfer in node.get("tgen", {}).get("transfers", {}).items():
                ask = self._transfer if "stream_info" in transfer else self._old_transfer
                yield from (f"transfer {name}: {fault}" for fault in ask(transfer))
            if "tor" in node:
                yield from self._tor(node["tor"])

    def _steps(self, steps: list[dict[str, Any]]) -> Iterator[str]:
        seconds = [step["seconds"] for step in steps]
        for begin in range(len(seconds)):
            for end in range(begin + 1, len(seconds) + 1):
                self.shifts.append(sum(seconds[begin:end]))
        for step in steps:
            if step.get("from") != "stamps" and step["unix_ts"] not in self.clocks:
                yield f"a step of the clock at {step['unix_ts']}"

    def _is_said(self, ts: float, facts: Iterable[Fact], name: str = "ts") -> bool:
        return any(
            abs(fact[name] + shift - ts) < _NEAR_SECONDS
            for fact in facts
            if name in fact
            for shift in self.shifts
        )

    def _transfer(self, record: dict[str, Any]) -> Iterator[str]:
        transport, stream = record["transport_info"], record["stream_info"]
        size, times = record.get("byte_info"), record.get("time_info")
        facts = self.lines.get(_key(transport, stream), [])
        same = [
            fact
            for fact in facts
            if (fact["transport"], fact["stream"], fact["bytes"], fact["times"])
            == (transport, stream, size, times)
        ]
        if record["is_complete"]:
            word = "success" if record["is_success"] else "error"
            same = [f for f in same if f["word"] == word and f["ts"] == record["unix_ts_end"]]
        if not same:
            yield "no line says this"
            return
        way, wanted = _seed_of(transport, stream, size)
        start = record["unix_ts_start"]
        if times:
            end = record["unix_ts_end"]
            lasted = (int(times["now-ts"]) - int(times["created-ts"])) / 1e6
            if lasted < 0 or abs(start - (end - lasted)) > _NEAR_SECONDS:
                yield "its start"
            for step in (*_STEPS, *(f"{step}-{way}" for step in _PAYLOAD_STEPS)):
                name = step.removesuffix(f"-{way}").replace("-", "_")
                microseconds = int(times[f"usecs-to-{step}"])
                said = record["elapsed_seconds"].get(name)
                if said != (microseconds / 1e6 if microseconds >= 0 else None):
                    yield f"elapsed {name}"
        elif not self._is_said(start, facts):
            yield "its start"
        for field, value in wanted.items():
            if record.get(field) != value:
                yield f"{field} is {record.get(field)!r}, not {value!r}"
        yield from self._payload(record["elapsed_seconds"], way, start, facts)

    def _payload(
        self, elapsed: dict[str, Any], way: str, start: float, facts: list[Fact]
    ) -> Iterator[str]:
        other = "recv" if way == "send" else "send"
        for suffix, direction in (("", way), (f"_{other}", other)):
            for name, least, what in (
                (f"payload_progress{suffix}", lambda mark: 100 * float(mark), "_percent"),
                (f"payload_bytes{suffix}", int, ""),
            ):
                for mark, seconds in elapsed.get(name, {}).items():
                    passed = (
                        fact
                        for fact in facts
                        if fact.get(direction + what, -1) >= least(mark) - 1e-9
                    )
                    if not self._is_said(start + seconds, passed):
                        yield f"{name} {mark}"

    def _old_transfer(self, record: dict[str, Any]) -> Iterator[str]:
        transport = record["transport_info"]
        vertex, _, count = record["transfer_id"].partition("#")[0].rpartition(":")
        name, peer = record["hostname_local"], record["hostname_remote"]
        ends = [transport[end] for end in ("local", "proxy", "remote")]
        is_of_2015 = transport["state"] == "UNKNOWN"
        method = r"PUT" if record["method"] == "PUT" else r"(?!PUT)[A-Z]+"
        size, error = record["filesize_bytes"], record["error_code"]
        if is_of_2015:
            texts = {f"{transport['fd']}-{'-'.join(ends[index:])})" for index in (1, 2)}
            shape = (
                rf"\({count}-{re.escape(name)}-{method}-0*{size}-{re.escape(peer)}"
                rf"-\d+-state=\w+-error={error}\)"
            )
            of_it = rf"\({count}-{re.escape(name)}-.*"
        else:
            state = f"state={transport['state']},error={transport['error']}"
            texts = {",".join((transport["fd"], *ends, state))}
            shape = (
                rf"{re.escape(vertex)},{count},{re.escape(name)},{method},0*{size},"
                rf"{re.escape(peer)},\d+,state=\w+,error={error}"
            )
            of_it = rf"{re.escape(vertex)},{count},.*"
        facts = [fact for fact in self.old if re.fullmatch(of_it, fact["transfer"])]
        words = {True: "complete" if record["is_success"] else "error", False: "status"}
        same = [
            fact
            for fact in facts
            if re.sub(r"^\(?[A-Z]+[,-]", "", fact["transport"]) in texts
            and re.fullmatch(shape, fact["transfer"])
            and fact["word"] == words[record["is_complete"]]
            and int(fact["total_read"]) == record["total_bytes_read"]
            and int(fact["total_write"]) == record["total_bytes_write"]
            and (not record["is_complete"] or fact["ts"] == record["unix_ts_end"])
        ]
        way = "send" if record["method"] == "PUT" else "recv"
        same = [fact for fact in same if fact[way] == record["payload_bytes_status"]]
        steps = {
            step: value
            for step, value in record["elapsed_seconds"].items()
            if not step.startswith("payload")
        }
        if not any(_old_steps(fact) == steps for fact in same):
            yield "no line says this"
            return
        start = record["unix_ts_start"]
        if record["is_success"]:
            if abs(record["unix_ts_end"] - max(steps.values(), default=0) - start) > _NEAR_SECONDS:
                yield "its start"
        elif not self._is_said(start, facts) and not (
            record["is_error"]
            and abs(record["unix_ts_end"] - max(steps.values(), default=0) - start) < _NEAR_SECONDS
        ):
            yield "its start"
        yield from self._payload(record["elapsed_seconds"], way, start, facts)

    # ---- tor -----------------------------------------------------------------------------------

    def _tor(self, tor: dict[str, Any]) -> Iterator[str]:
        yield from self._bandwidth(tor["bandwidth_summary"])
        for name, circuit in tor["circuits"].items():
            yield from (f"circuit {name}: {fault}" for fault in self._circuit(circuit))
        for name, stream in tor["streams"].items():
            yield from (f"stream {name}: {fault}" for fault in self._stream(stream))
        for guard in tor["guards"]:
            yield from (f"guard: {fault}" for fault in self._guard(guard))
        for name, connection in tor["or_connections"].items():
            yield from (f"connection {name}: {f}" for f in self._connection(name, connection))
        for gap in tor["gaps"]:
            for field in ("unix_ts_start", "unix_ts_end"):
                if field in gap and not self._is_said(gap[field], self.gaps):
                    yield f"gap {field}"
            lost = {fact["lost"] and int(fact["lost"]) for fact in self.gaps}
            if gap.get("lost_entries") not in lost:
                yield "gap lost_entries"

    def _bandwidth(self, summary: dict[str, dict[str, int]]) -> Iterator[str]:
        for way, name in (("read", "bytes_read"), ("written", "bytes_written")):
            said: collections.Counter[str] = collections.Counter()
            for fact in self.events["BW"]:
                said[str(int(fact["ts"]))] += int(fact[way])
            for second, count in summary[name].items():
                if count > said[second] or (count and second not in said):
                    yield f"{name} of {second}"

    def _named(
        self, elapsed: list[list[Any]], start: float, facts: list[tuple[str, Fact]]
    ) -> Iterator[str]:
        for name, seconds in elapsed:
            if not self._is_said(start + seconds, (fact for said, fact in facts if said == name)):
                yield f"{name} after {seconds}"
        after = [seconds for _, seconds in elapsed]
        if after != sorted(after):
            yield "its events are not in the order of time"

    def _circuit(self, record: dict[str, Any]) -> Iterator[str]:
        number = str(record["circuit_id"])
        start = record["unix_ts_start"]
        said: list[tuple[str, Fact]] = []
        facts = []
        for kind in ("CIRC", "CIRC_MINOR"):
            for fact in self.events[kind]:
                if str(int(fact["number"])) != number:
                    continue
                facts.append(fact)
                purpose = fact.get("PURPOSE", "UNKNOWN")
                words = (purpose, fact["status"]) if kind == "CIRC" else (fact["status"], purpose)
                said.append((":".join(words), fact))
                if purpose in _HIDDEN:
                    query = fact.get("REND_QUERY")
                    state = fact.get("HS_STATE", "UNKNOWN")
                    said.append((f"{state}:{query}" if query else state, fact))
        yield from self._named(record["elapsed_seconds"], start, said)
        streams = [s for s in self.events["STREAM"] if str(int(s["circuit"])) == number]
        if not (self._is_said(start, facts + streams) or self._is_said(start, facts, "created")):
            yield "its start"
        for index, (hop, *at) in enumerate(record.get("path", [])):
            with_it = [f for f in facts if f["hops"][index : index + 1] == [hop]]
            extended = [f for f in with_it if f["status"] == "EXTENDED"]
            if not with_it or (at and not self._is_said(start + at[0], extended)):
                yield f"hop {index}"
        yield from self._build(record, start, facts)
        yield from self._end(record, facts)

    def _build(self, record: dict[str, Any], start: float, facts: list[Fact]) -> Iterator[str]:
        if "buildtime_seconds" in record:
            built = (f for f in facts if f["status"] == "BUILT")
            if not self._is_said(start + record["buildtime_seconds"], built):
                yield "buildtime_seconds"
            if record["buildtime_seconds"] < 0:
                yield "built before its launch"
        timeouts = [
            (int(fact["TIMEOUT_MS"]), float(fact["CUTOFF_QUANTILE"]))
            for fact in self.events["BUILDTIMEOUT_SET"]
        ]
        timeout = (record.get("build_timeout"), record.get("build_quantile"))
        if timeout not in [(None, None), *timeouts]:
            yield "build_timeout"
        for guard in record.get("current_guards", ()):
            yield from self._guard(guard)

    def _end(self, record: dict[str, Any], facts: list[Fact]) -> Iterator[str]:
        if "unix_ts_end" in record:
            ended = [f for f in facts if f["status"] in {"CLOSED", "FAILED"}]
            if not self._is_said(record["unix_ts_end"], ended):
                yield "its end"
            if record["unix_ts_end"] < record["unix_ts_start"]:
                yield "ended before its start"
        for field, key in (
            ("failure_reason_local", "REASON"),
            ("failure_reason_remote", "REMOTE_REASON"),
        ):
            said = {f.get(key) for f in facts if f["status"] == "FAILED"}
            if field in record and record[field] not in said:
                yield field

    def _stream(self, record: dict[str, Any]) -> Iterator[str]:
        number = str(record["stream_id"])
        facts = [f for f in self.events["STREAM"] if str(int(f["number"])) == number]
        purposes = {"UNKNOWN", *(f["PURPOSE"] for f in facts if "PURPOSE" in f)}
        said = [(f"{purpose}:{f['status']}", f) for f in facts for purpose in purposes]
        start = record["unix_ts_start"]
        yield from self._named(record["elapsed_seconds"], start, said)
        if not self._is_said(start, facts):
            yield "its start"
        yield from self._end(record, facts)
        if record["target"] not in {f["target"] for f in facts}:
            yield "target"
        if "source" in record and record["source"] not in {f.get("SOURCE_ADDR") for f in facts}:
            yield "source"
        circuit = record.get("circuit_id", "").partition("#")[0]
        if circuit and circuit not in {str(int(f["circuit"])) for f in facts}:
            yield "circuit_id"

    def _guard(self, guard: dict[str, Any]) -> Iterator[str]:
        facts = [
            fact
            for fact in self.events["GUARD"]
            if fact["kind"] == "ENTRY" and fact["hop"][1:41].upper() == guard["fingerprint"]
        ]
        if guard["nickname"] not in {fact["hop"][42:] for fact in facts}:
            yield "nickname"
        for status in ("NEW", "UP", "DOWN", "DROPPED"):
            field = f"{status.lower()}_ts"
            said = [fact for fact in facts if fact["status"] == status]
            if field in guard and not self._is_said(guard[field], said):
                yield field

    def _connection(self, name: str, record: dict[str, Any]) -> Iterator[str]:
        number = name.partition("#")[0]
        facts = [f for f in self.events["ORCONN"] if f.get("ID", f["endpoint"]) == number]
        start = record["unix_ts_start"]
        yield from self._named(record["elapsed_seconds"], start, [(f["status"], f) for f in facts])
        yield from self._end(record, facts)
        if not self._is_said(start, facts):
            yield "its start"
        if record["endpoint"] not in {f["endpoint"] for f in facts}:
            yield "endpoint"


def _seed_of(
    transport: dict[str, str], stream: dict[str, str], size: dict[str, str] | None
) -> tuple[str, Fact]:
    recv, send = int(stream["recvsize"]), int(stream["sendsize"])
    if recv == send == 0 and size:
        is_put = int(size["payload-bytes-send"]) > int(size["payload-bytes-recv"])
    else:
        is_put = send > recv
    way = "send" if is_put else "recv"
    seed: Fact = {
        "endpoint_local": transport["local"], "endpoint_proxy": transport["proxy"],
        "endpoint_remote": transport["remote"], "error_code": stream["error"],
        "filesize_bytes": max(recv, send), "hostname_local": stream["name"],
        "hostname_remote": stream["peername"], "method": "PUT" if is_put else "GET",
    }  # fmt: skip
    if size:
        seed["payload_bytes_status"] = int(size[f"payload-bytes-{way}"])
        seed["total_bytes_read"] = int(size["total-bytes-recv"])
        seed["total_bytes_write"] = int(size["total-bytes-send"])
    return way, seed


def _old_steps(fact: Fact) -> dict[str, float]:
    """Return the steps that were reached; what is no time of a transfer but of a day is none."""
    steps = {}
    for word in (fact["times"] or "").split():
        name, _, value = word.partition("=")
        unit, _, step = name.partition("-to-")
        microseconds = int(value) * (1000 if unit == "msecs" else 1)
        if 0 <= microseconds < 10**12:
            steps[step.replace("-", "_")] = microseconds / 1e6
    return steps
