"""Damaged logs of all kinds: no exception, and no record that differs from what its lines say.

The figures of a run at full length (``--long``): pytest -s shows its figures.
"""

from __future__ import annotations

import collections
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline, source, validation
from perfmeasure.errors import InputError
from tests.analysis import conclusions
from tests.analysis.conftest import Lines
from tests.analysis.mutations import Corpus, Log, damage
from tests.analysis.oracle import Oracle

KINDS = (
    "tgen 1.x", "tgen 1.x server", "tgen 2016", "tgen 2015", "tgen own",
    "torctl CRLF", "torctl LF", "torctl 0.2", "torctl own",
)  # fmt: skip
# Reasons for which a line is rejected that is whole: they are about the lines around it.
_WHOLE_BUT_REJECTED = (
    "the same end of a transfer again",
    "out of order",
    "event is cut: its line end",
)


@pytest.fixture(scope="session")
def corpus(fixtures: Path, lines: type[Lines]) -> Corpus:
    return Corpus(fixtures, lines)


def faults_in(document: dict[str, Any], oracle: Oracle) -> Iterator[str]:
    """Yield what no line says, and what does not follow from the records."""
    yield from oracle.faults(document)
    for node in document["data"].values():
        yield from conclusions.faults(node)


def faults_of(content: bytes, path: Path) -> list[str]:
    """Analyse a log and return everything that is wrong with the outcome."""
    path.write_bytes(content)
    oracle = Oracle(content)
    try:
        document = pipeline.analyze([path])
    except InputError as error:
        is_known = bool(oracle.intact) and "no log that is known" in str(error)
        return [f"refused: {error}"] if is_known else []
    except Exception as error:  # noqa: BLE001 - that there is none is what is tested
        return [f"{type(error).__name__}: {error}"]
    jsonio.canonical(document)
    found = list(faults_in(document, oracle))
    found += [str(error) for error in validation.errors(document, "it")]
    [log] = document["meta"]["inputs"]
    count = log["lines"]
    if count["used"] + count["skipped"] + sum(count["rejected"].values()) != count["total"]:
        found.append(f"the counts do not add up: {count}")
    rejected = sum(
        n for why, n in count["rejected"].items() if not why.startswith(_WHOLE_BUT_REJECTED)
    )
    if rejected > count["total"] - len(oracle.intact):
        found.append(f"whole lines were rejected: {count}")
    return found


def smallest(log: Log, path: Path) -> Log:
    """Leave out lines as long as something is wrong with the rest."""
    size = max(1, len(log) // 2)
    while size:
        at = 0
        while at < len(log):
            fewer = log[:at] + log[at + size :]
            if fewer and faults_of(b"".join(fewer), path):
                log = fewer
            else:
                at += size
        size //= 2
    return log


def check(log: Log, path: Path, seed: str) -> None:
    if faults_of(b"".join(log), path):
        least = smallest(log, path)
        said = "\n".join(faults_of(b"".join(least), path))
        shown = "\n".join(repr(line) for line in least)
        pytest.fail(f"seed {seed}: {said}\n{shown}", pytrace=False)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_logs_say_what_they_say(corpus: Corpus, kind: str, tmp_path: Path) -> None:
    for number, log in enumerate(corpus.logs[kind]):
        content = b"".join(log)
        check(log, tmp_path / "a.log", f"log {number}")
        assert len(Oracle(content).intact) > 3
        [found] = source.find([tmp_path / "a.log"])
        assert found.kind in {source.Kind.TGEN, source.Kind.TORCTL}
        document = pipeline.analyze([tmp_path / "a.log"])
        assert document["meta"]["inputs"][0]["lines"]["rejected"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_logs_say_nothing_else(
    corpus: Corpus, kind: str, tmp_path: Path, *, is_long: bool
) -> None:
    lines = 0
    done: collections.Counter[str] = collections.Counter()
    seed = 0
    wanted = 1_000_000 // len(KINDS) if is_long else 4000
    while lines < wanted:
        seed += 1
        rng = random.Random(f"{kind} {seed}")
        log = rng.choice(corpus.logs[kind])
        begin = rng.randrange(max(1, len(log) - 20))
        piece, what = damage(log[begin : begin + rng.randint(5, 120)], rng)
        lines += len(piece)
        done.update(what)
        check(piece, tmp_path / "a.log", f"{kind} {seed}")
    print(  # noqa: T201 - shown with -s
        f"{kind}: {lines} lines in {seed} logs, {done.total()} mutations: {dict(done)}"
    )


_SORT = re.compile(
    rb"\] \[(?:stream|transfer|driver)-\w+\]|Created new|Initializing|\[clock_pair\]"
    rb"| 650 (?:STREAM|CIRC|CIRC_MINOR) \d+ [A-Z]+| 650.[A-Z_]+|\[CLOCK\]|Starting"
    rb"|\[GAP\] \w+ \w+ \w+|\[LOST\]"
)


def lines_to_cut(corpus: Corpus, kind: str) -> list[tuple[Log, int]]:
    """Return one place, with the lines around it, for each sort of line in the logs of a kind."""
    found: dict[bytes, tuple[Log, int]] = {}
    for log in corpus.logs[kind]:
        for at, line in enumerate(log):
            sort = _SORT.search(line)
            if sort and sort[0] not in found:
                found[sort[0]] = (log, at)
    return list(found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_cut_at_every_byte(
    corpus: Corpus, kind: str, tmp_path: Path, *, is_long: bool
) -> None:
    sorts = lines_to_cut(corpus, kind)
    for log, at in sorts:
        line = log[at]
        lengths = range(len(line))
        for length in lengths if is_long else lengths[at % 17 :: 51]:
            for end in (b"", b"\n"):
                piece = [*log[max(0, at - 3) : at], line[:length] + end, *log[at + 1 : at + 4]]
                check(piece, tmp_path / "a.log", f"{kind} cut at {length}")


def test_the_oracle_notices(corpus: Corpus, tmp_path: Path) -> None:
    """Change each number of a database: something must be said, else nothing was checked."""
    for kind in KINDS:
        log = b"".join(corpus.logs[kind][0])
        (tmp_path / "a.log").write_bytes(log)
        oracle = Oracle(log)
        document = pipeline.analyze([tmp_path / "a.log"])
        assert not list(faults_in(document, oracle))
        assert not [
            place for place in changed(document["data"]) if not any(faults_in(document, oracle))
        ], kind


def changed(node: Any, place: tuple[str, ...] = ()) -> Any:
    """Change one number after the other, and yield its place while it is changed."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        here = (*place, str(key))
        if isinstance(value, dict | list):
            yield from changed(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            node[key] = value + 1000003
            yield here
            node[key] = value
