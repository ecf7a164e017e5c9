from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import UsageError
from perfmeasure.recorder.classes import Side
from perfmeasure.recorder.keys import INDEXES, Connection, address_bytes, parse_key
from perfmeasure.recorder.language import (
    HELP,
    WORDS,
    Assign,
    Feed,
    Print,
    Query,
    Show,
    Suspend,
    ToFile,
    Unsubscribe,
    parse,
)
from perfmeasure.recorder.predicate import And, Match, Times

KEY = "tcp 1.2.3.4:80 5.6.7.8:88"
CONNECTION = parse_key("connection4", KEY)
assert isinstance(CONNECTION, Connection)
FOUR, SIX = address_bytes("1.2.3.4"), address_bytes("2001:db8::1")
assert FOUR is not None
assert SIX is not None
IP = Match(parse_key("ip", "1.2.3.4"))
FIRST_NS, LAST_NS = 1_700_000_000 * 10**9, 1_700_000_000_250_000_001


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Print()),
        ("nop", Print()),
        ("print", Print()),
        ('print "a b"', Print(("a b",))),
        ("print word", Print(("word",))),
        ("help", Print(HELP)),
        ('query to_file "x.pcap" index ip "1.2.3.4"', Query(ToFile("x.pcap"), IP)),
        ('  query  to_file x.pcap index ip  "1.2.3.4" ', Query(ToFile("x.pcap"), IP)),
        ('query feed zeek tag t1 index ip "1.2.3.4"', Query(Feed("zeek", "t1"), IP)),
        (
            (
                'query to_file "x" index ip "1.2.3.4" subscribe start 1700000000 '
                "end 1700000000.250000001 mem_only"
            ),
            Query(ToFile("x"), And((IP, Times(FIRST_NS, LAST_NS))), "", True, True),
        ),
        (
            f'query to_file "x" index connection4 "{KEY}" mem_only',
            Query(ToFile("x"), Match(CONNECTION), is_mem_only=True),
        ),
        ("find host 1.2.3.4 or port 80", Query(None, None, "host 1.2.3.4 or port 80")),
        (
            'find to_file "x" mem_only conn "tcp 1.2.3.4:80 5.6.7.8:88"',
            Query(ToFile("x"), None, 'conn "tcp 1.2.3.4:80 5.6.7.8:88"', True),
        ),
        (
            "find subscribe feed p tag t (port 80)",
            Query(Feed("p", "t"), None, "(port 80)", False, True),
        ),
        (f'suspend_cutoff "{KEY}"', Suspend("cutoff", True, CONNECTION)),
        (f'unsuspend_cutoff "{KEY}"', Suspend("cutoff", False, CONNECTION)),
        (f'suspend_timeout "{KEY}"', Suspend("timeout", True, CONNECTION)),
        (f'unsuspend_timeout "{KEY}"', Suspend("timeout", False, CONNECTION)),
        ("set_dyn_class 1.2.3.4 alarm", Assign(FOUR, "alarm")),
        ("set_dyn_class 1.2.3.4 alarm orig", Assign(FOUR, "alarm", Side.ORIGINATOR)),
        ("set_dyn_class 2001:db8::1 alarm resp", Assign(SIX, "alarm", Side.RESPONDER)),
        ("unset_dyn_class 1.2.3.4", Assign(FOUR, None)),
        ("show stats", Show("stats")),
        ("sh stats", Show("stats")),
        ("show conn sample", Show("sample")),
        (f'show conn "{KEY}"', Show("conn", CONNECTION)),
        ("show subscriptions", Show("subscriptions")),
        ("unsubscribe 12", Unsubscribe(12)),
    ],
)
def test_commands(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("querry", "PARSER ERROR - character 1: 'querry'; wanted one of query, find"),
        ('"query"', "PARSER ERROR - character 2: 'query'; wanted one of query"),
        ("query", "PARSER ERROR - character 6: the line ends; wanted to_file or feed"),
        ("query to_email x", "PARSER ERROR - character 7: 'to_email'; wanted to_file or feed"),
        ('query to_file "x" ip "1.2.3.4"', "character 19: 'ip'; wanted index"),
        ('query to_file "x" index conn4 "k"', "NO SUCH INDEX - 'conn4': unknown; wanted connec"),
        ('query to_file "x" index ip "nonsense"', "QUERY KEY UNDEFINED - index ip: 'nonsense'"),
        ('query to_file "x" index connection3 "1.2.3.4 5.6.7.8"', "a key of connection2"),
        ('query to_file "x" index ip 1.2.3.4', "character 28: '1.2.3.4'; wanted a key, in quot"),
        ('query to_file "x" index ip "1.2.3.4" start 5', "the line ends; wanted end"),
        ('query to_file "x" index ip "1.2.3.4" start a end 5', "'a'; wanted a time"),
        ('query to_file "x" index ip "1.2.3.4" start 1e9 end 5', "'1e9'; wanted a time"),
        ('query to_file "x" index ip "1.2.3.4" mem_only mem_only', "'mem_only' for the second"),
        ('query to_file "x" index ip "1.2.3.4" now', "'now'; wanted start or mem_only or sub"),
        ('query to_file "x index ip', "wanted words, and texts in a pair of quotation marks"),
        ('query feed "a b" tag t index ip "1.2.3.4"', "wanted the name of a program"),
        ('query feed p tag "$(x)" index ip "1.2.3.4"', "wanted a tag: up to 64 letters"),
        ("find", "the line ends; wanted an expression"),
        ("find subscribe port 80", "subscribe without a target"),
        ('find to_file "x" feed p tag t port 80', "'feed' for the second time"),
        ("suspend_cutoff", "the line ends; wanted the key of a connection"),
        ('suspend_cutoff "1.2.3.4"', "QUERY KEY UNDEFINED - index connection4"),
        ("set_dyn_class host alarm", "'host'; wanted an address"),
        ("set_dyn_class 1.2.3.4 alarm both", "'both'; wanted orig or resp"),
        ("show", "the line ends; wanted stats or conn or subscriptions"),
        ("show stats now", "'now'; wanted the end of the line"),
        ("unsubscribe one", "'one'; wanted the number"),
        ("nop nop", "'nop'; wanted the end of the line"),
        ("bro_connect", "Broccoli is no more; wanted query feed"),
    ],
)
def test_mistakes_are_said_with_their_place(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/b", ".x", "..", "", "x" * 101, "a b", "x\0y", "x.part", "-/x", "ä"],
)
def test_a_file_is_only_ever_in_its_folder(name: str) -> None:
    with pytest.raises(UsageError, match=r"PARSER ERROR - .*the folder queries of the store"):
        parse(f'query to_file "{name}" index ip "1.2.3.4"')


def test_times_beyond_all_are_the_last() -> None:
    command = parse('query to_file x index ip "1.2.3.4" start 0 end 9999999999.9')
    assert command == Query(ToFile("x"), And((IP, Times(0, 2**63 - 1))))


def mistake(line: str) -> str:
    """Return how the error of a line begins, nothing if it is a command."""
    try:
        parse(line)
    except UsageError as error:
        return error.where.partition(" - ")[0]
    return ""


@given(st.text(st.sampled_from([*' "ab.:/\0\n', "é"]), max_size=30))
def test_any_text_is_a_command_or_one_error(text: str) -> None:
    for line in (text, f"query {text}", f"find to_file {text}", f"query to_file x index {text}"):
        assert mistake(line) in ("", "PARSER ERROR", "NO SUCH INDEX", "QUERY KEY UNDEFINED")


_WORD = st.one_of(st.sampled_from(WORDS), st.sampled_from([f'"{KEY}"', '"1.2.3.4"', "1.5", "x"]))


@given(st.lists(_WORD, max_size=12))
def test_words_in_any_order_are_a_command_or_one_error(words: list[str]) -> None:
    line = " ".join(words)
    assert mistake(line) in ("", "PARSER ERROR", "NO SUCH INDEX", "QUERY KEY UNDEFINED")


@given(
    st.sampled_from(INDEXES),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.tuples(st.integers(0, 2**31), st.integers(0, 999_999_999))),
    st.randoms(use_true_random=False),
)
def test_flags_come_in_any_order(
    index: str, is_mem_only: bool, is_subscribed: bool, times: tuple[int, int] | None, rng: object
) -> None:
    key = {
        "connection4": KEY,
        "connection3": "udp [2001:db8::1] 1.2.3.4:53",
        "connection2": "1.2.3.4 5.6.7.8",
    }.get(index, "80" if index.endswith("port") else "2001:db8::1")
    flags = ["mem_only"] * is_mem_only + ["subscribe"] * is_subscribed
    node: object = Match(parse_key(index, key))
    if times is not None:
        flags.append(f"start {times[0]} end {times[0]}.{times[1]:09d}")
        first_ns = times[0] * 10**9
        node = And((Match(parse_key(index, key)), Times(first_ns, first_ns + times[1])))
    rng.shuffle(flags)  # type: ignore[attr-defined]
    command = parse(" ".join(['query to_file "x" index', index, f'"{key}"', *flags]))
    assert isinstance(command, Query)
    assert command.node == node
    assert (command.is_mem_only, command.is_subscribed) == (is_mem_only, is_subscribed)
