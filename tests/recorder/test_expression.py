from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import UsageError
from perfmeasure.recorder.expression import parse, parse_time
from perfmeasure.recorder.keys import Address, Connection, Port, Protocol, Side, Vlan, address_bytes
from perfmeasure.recorder.predicate import And, Match, Node, Not, Or, Times

NOW = 1_700_000_000 * 10**9


def address(text: str) -> bytes:
    found = address_bytes(text)
    assert found is not None
    return found


A, B = address("10.0.0.1"), address("2001:db8::1")
HOST = Match(Address(A, A))
PORT = Match(Port(80))
TCP = Match(Protocol(6))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("host 10.0.0.1", HOST),
        ("HOST 10.0.0.1", HOST),
        ("src host 2001:db8::1", Match(Address(B, B, Side.SOURCE))),
        ("dst port 80", Match(Port(80, Side.TARGET))),
        ("net 10.0.0.0/8", Match(Address(address("10.0.0.0"), address("10.255.255.255")))),
        ("net 2001:db8::/127", Match(Address(address("2001:db8::"), B))),
        ("proto tcp", TCP),
        ("proto 6", TCP),
        ("vlan", Match(Vlan(None))),
        ("vlan 7 and port 80", And((Match(Vlan(7)), PORT))),
        ("vlan and port 80", And((Match(Vlan(None)), PORT))),
        ("conn tcp 10.0.0.1:80 [2001:db8::1]:9", Match(Connection((A, B), 6, (80, 9)))),
        ("conn 'tcp 10.0.0.1 [2001:db8::1]:9'", Match(Connection((A, B), 6, (None, 9)))),
        ("conn 10.0.0.1 2001:db8::1", Match(Connection((A, B)))),
        ("port 80 or proto tcp and host 10.0.0.1", Or((PORT, And((TCP, HOST))))),
        ("port 80 and proto tcp or host 10.0.0.1", Or((And((PORT, TCP)), HOST))),
        ("(port 80 or proto tcp) and host 10.0.0.1", And((Or((PORT, TCP)), HOST))),
        ("not port 80 and proto tcp", And((Not(PORT), TCP))),
        ("not not (port 80)", Not(Not(PORT))),
        ("!port 80&&proto tcp||host 10.0.0.1", Or((And((Not(PORT), TCP)), HOST))),
        ("after 1700000000.000000001", Times(first_ns=NOW + 1)),
        ("before 1700000000", Times(last_ns=NOW - 1)),
        ("after 2023-11-14T22:13:20Z", Times(first_ns=NOW)),
        ("after 2023-11-14T23:13:20.5+01:00", Times(first_ns=NOW + 500_000_000)),
        ("after '2023-11-14 22:13:20'", Times(first_ns=NOW)),
        ("before 2023-11-15", Times(last_ns=1_700_006_400 * 10**9 - 1)),
        ("after 5m ago", Times(first_ns=NOW - 300 * 10**9)),
        ("after '5 m ago'", Times(first_ns=NOW - 300 * 10**9)),
        ("last 90s and port 80", And((Times(first_ns=NOW - 90 * 10**9), PORT))),
    ],
)
def test_what_an_expression_asks(text: str, node: Node) -> None:
    assert parse(text, now_ns=NOW) == node


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 1, "expression ends"),
        ("host", 5, "expression ends"),
        ("host 10.0.0.256", 6, "an address"),
        ("host and port 80", 6, "'and'"),
        ("port 80 port 81", 9, "and, or, or the end"),
        ("port 80 and", 12, "expression ends"),
        ("port 65536", 6, "65535"),
        ("port http", 6, "port number"),
        ("(port 80", 9, "a ) for the ( at character 1"),
        ("port 80)", 8, "the end"),
        ("net 10.0.0.1/8", 5, "a net"),
        ("proto nonsense", 7, "a protocol"),
        ("vlan 4096", 6, "4095"),
        ("src proto tcp", 5, "after src"),
        ("conn tcp 10.0.0.1:80", 21, "other end"),
        ("conn tcp 10.0.0.1:80 10.0.0.2", 6, "no connection"),
        ("after tomorrow", 7, "a time"),
        ("after 2023-13-01", 7, "a time"),
        ("last week", 6, "a duration"),
        ("last -5m", 6, "a duration"),
        ("hosts 10.0.0.1", 1, "host, net"),
        ("conn 'tcp 10.0.0.1:80", 6, "not closed"),
        ("transfer 7", 10, "a store that knows"),
        ("(" * 300, 101, "deeply"),
        ("not " * 300, 401, "deeply"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_place(text: str, at: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, now_ns=NOW)
    assert f"character {at}:" in str(caught.value)
    assert words in str(caught.value)


def test_transfers_and_circuits_are_looked_up() -> None:
    key = Connection((A, B), 6, (1, 2))

    def resolve(name: str, identifier: str) -> list[tuple[Connection, int, int]]:
        if identifier == "none":
            raise UsageError("x", f"no {name} none", "one that is there")
        return [(key, 5, 9), (key, 20, 30)]

    node = Or((And((Match(key), Times(5, 9))), And((Match(key), Times(20, 30)))))
    assert parse("circuit 7 and port 80", resolve) == And((node, PORT))
    with pytest.raises(UsageError, match="character 10: no transfer none"):
        parse("transfer none", resolve)


def test_a_year_beyond_what_python_knows_is_refused() -> None:
    assert parse_time("99999999999") == 99999999999 * 10**9
    assert parse_time("0000-01-01") is None


leaves = st.sampled_from([("host 10.0.0.1", HOST), ("port 80", PORT), ("proto tcp", TCP)])


def grown(
    children: st.SearchStrategy[tuple[str, Node, int]],
) -> st.SearchStrategy[tuple[str, Node, int]]:
    """Return expressions of others, with parentheses only where they are needed.

    The number is how tightly an expression binds: 1 or, 2 and, 3 not, 4 a leaf.
    """

    def bound(child: tuple[str, Node, int], least: int) -> str:
        return child[0] if child[2] >= least else f"({child[0]})"

    def joined(word: str, level: int) -> st.SearchStrategy[tuple[str, Node, int]]:
        kind = And if word == "and" else Or
        return st.lists(children, min_size=2, max_size=3).map(
            lambda found: (
                f" {word} ".join(bound(child, level + 1) for child in found),
                kind(tuple(child[1] for child in found)),
                level,
            )
        )

    negated = children.map(lambda child: (f"not {bound(child, 3)}", Not(child[1]), 3))
    return joined("or", 1) | joined("and", 2) | negated


@given(st.recursive(leaves.map(lambda leaf: (*leaf, 4)), grown, max_leaves=12))
def test_precedence(expression: tuple[str, Node, int]) -> None:
    assert parse(expression[0]) == expression[1]


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            ["host", "10.0.0.1", "(", ")", "and", "or", "not", "!", "port", "80", "last"]
        )
    ).map(" ".join)
)
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text)
