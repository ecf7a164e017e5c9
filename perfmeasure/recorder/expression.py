"""The query language: an expression as text becomes a tree of `perfmeasure.recorder.predicate`.

    host ADDRESS        net ADDRESS/BITS       port NUMBER       each also after src or dst
    proto NAME|NUMBER   vlan [NUMBER]          conn KEY          (KEY: perfmeasure.recorder.keys)
    transfer ID         circuit ID             after TIME        before TIME      last DURATION
    not X   X and Y   X or Y   ( X )           also !  &&  ||

`not` binds closer than `and`, `and` closer than `or`. A TIME is Unix seconds, a date
(2026-01-31T12:00:00Z, with or without the time; UTC unless it says otherwise) or "5m ago"; a
DURATION such as 90s, 5m, 2h or 1d. `after` includes its time, `before` does not, so that ranges
that meet share nothing. Words may be quoted.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from perfmeasure.errors import UsageError
from perfmeasure.recorder.keys import (
    Address,
    Connection,
    Key,
    Port,
    Protocol,
    Side,
    Vlan,
    address_bytes,
    parse_connection,
    protocol_number,
)
from perfmeasure.recorder.predicate import And, Match, Node, Not, Or, Times
from perfmeasure.recorder.records import MAPPED
from perfmeasure.units import parse_seconds

Resolver = Callable[[str, str], list[tuple[Connection, int, int]]]
"""Returns the connections that a ``transfer`` or ``circuit`` (the first argument) of this id used,
each with its first and last Unix time in ns. Raises `UsageError` if there is none."""

_TOKEN = re.compile(r"\s*(?:(\"[^\"]*\"|'[^']*')|(\(|\)|&&|\|\||!)|([^\s()!&|\"']+))")
_MAX_DEPTH = 100
_MAX_SECONDS = 10**12
_WORDS_OF_OPERATORS = {"and": "and", "&&": "and", "or": "or", "||": "or", "not": "not", "!": "not"}


class _Token(NamedTuple):
    text: str
    at: int
    is_quoted: bool = False

    @property
    def operator(self) -> str:
        """What it joins, or itself for a parenthesis, or nothing for a word."""
        if self.is_quoted:
            return ""
        return _WORDS_OF_OPERATORS.get(self.text.lower(), self.text if self.text in "()" else "")


def parse(text: str, resolve: Resolver | None = None, now_ns: int | None = None) -> Node:
    """Return what the expression asks.

    Args:
        text: the expression.
        resolve: finds transfers and circuits; without it they are unknown.
        now_ns: what "ago" and "last" count from, Unix ns; now if it is not given.

    Raises:
        UsageError: it cannot be understood; the message says where.
    """
    return _Parser(text, resolve, time.time_ns() if now_ns is None else now_ns).whole()


def of_connections(found: Iterable[tuple[Connection, int, int]]) -> Node:
    """Return a query for the packets of connections, each between its first and last Unix ns."""
    return Or(tuple(And((Match(key), Times(first, last))) for key, first, last in found))


class _Parser:
    def __init__(self, text: str, resolve: Resolver | None, now_ns: int) -> None:
        self._text = text
        self._resolve = resolve
        self._now_ns = now_ns
        self._depth = 0
        self._next = 0
        self._tokens: list[_Token] = []
        at = 0
        end = len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                is_quote = text[at] in "\"'"
                got = "a quotation mark that is not closed" if is_quote else repr(text[at])
                raise self._error(at, got, "")
            quoted, sign, word = match.groups()
            begins = match.end() - len(quoted or sign or word)
            self._tokens.append(
                _Token(quoted[1:-1] if quoted else sign or word, begins, bool(quoted))
            )
            at = match.end()

    def _error(self, at: int, got: str, wanted: str, next_step: str = "") -> UsageError:
        return UsageError(f"query, character {at + 1}", got, wanted, next_step)

    def _peek(self) -> _Token:
        if self._next < len(self._tokens):
            return self._tokens[self._next]
        return _Token("", len(self._text))

    def _word(self, wanted: str) -> _Token:
        """Return the next token, which must be a word."""
        token = self._peek()
        if self._next == len(self._tokens):
            raise self._error(token.at, "the expression ends", wanted)
        if token.operator:
            raise self._error(token.at, repr(token.text), wanted)
        self._next += 1
        return token

    # ---- operators ------------------------------------------------------------------------------

    def whole(self) -> Node:
        node = self._or()
        if self._next < len(self._tokens):
            token = self._peek()
            raise self._error(token.at, repr(token.text), "and, or, or the end")
        return node

    def _or(self) -> Node:
        nodes = [self._and()]
        while self._peek().operator == "or":
            self._next += 1
            nodes.append(self._and())
        return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))

    def _and(self) -> Node:
        nodes = [self._not()]
        while self._peek().operator == "and":
            self._next += 1
            nodes.append(self._not())
        return nodes[0] if len(nodes) == 1 else And(tuple(nodes))

    def _not(self) -> Node:
        token = self._peek()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(token.at, "too deeply nested", f"at most {_MAX_DEPTH} levels")
        try:
            if token.operator == "not":
                self._next += 1
                return Not(self._not())
            if token.operator == "(":
                self._next += 1
                node = self._or()
                if self._peek().operator != ")":
                    got = repr(self._peek().text) if self._peek().text else "the expression ends"
                    raise self._error(
                        self._peek().at, got, f"a ) for the ( at character {token.at + 1}"
                    )
                self._next += 1
                return node
            return self._primary()
        finally:
            self._depth -= 1

    # ---- what is asked --------------------------------------------------------------------------

    def _primary(self) -> Node:
        token = self._word(
            "host, net, port, proto, vlan, conn, transfer, circuit, after, before or last"
        )
        name = token.text.lower()
        if name in ("src", "dst"):
            inner = self._word("host, net or port")
            if inner.text.lower() not in ("host", "net", "port"):
                raise self._error(inner.at, repr(inner.text), f"host, net or port after {name}")
            return Match(self._key(inner.text.lower(), Side(name)))
        if name in ("host", "net", "port", "proto", "vlan", "conn"):
            return Match(self._key(name, Side.ANY))
        if name in ("transfer", "circuit"):
            return self._resolved(name)
        if name == "after":
            return Times(first_ns=self._time())
        if name == "before":
            return Times(last_ns=self._time() - 1)
        if name == "last":
            return Times(
                first_ns=self._now_ns - self._duration(self._word("a duration such as 5m"))
            )
        raise self._error(
            token.at,
            repr(token.text),
            "host, net, port, proto, vlan, conn, transfer, circuit, after, before or last",
        )

    def _key(self, name: str, side: Side) -> Key:
        if name == "conn":
            return self._connection()
        if name == "vlan":
            return self._vlan()
        token = self._word(f"what follows {name}")
        key: Key | None = None
        wanted = "an address such as 192.0.2.1 or 2001:db8::1"
        if name == "host":
            address = address_bytes(token.text)
            key = Address(address, address, side) if address is not None else None
        elif name == "net":
            wanted = "a net such as 192.0.2.0/24 or 2001:db8::/32, without bits beyond its length"
            key = _net(token.text, side)
        elif name == "port":
            wanted = "a port number up to 65535"
            if (number := _number(token.text, 65535)) is not None:
                key = Port(number, side)
        else:
            wanted = "a protocol such as tcp, udp, icmp or a number up to 255"
            if (number := protocol_number(token.text)) is not None:
                key = Protocol(number)
        if key is None:
            raise self._error(token.at, repr(token.text), wanted)
        return key

    def _vlan(self) -> Vlan:
        token = self._peek()
        if token.operator or not token.text.isdigit():
            return Vlan(None)
        number = _number(token.text, 4095)
        if number is None:
            raise self._error(token.at, repr(token.text), "a VLAN number up to 4095")
        self._next += 1
        return Vlan(number)

    def _connection(self) -> Connection:
        token = self._word("a connection such as tcp 192.0.2.1:80 198.51.100.2:1024")
        words = token.text.split()
        if not token.is_quoted:
            count = 1 if address_bytes(token.text) is not None else 2
            words += [self._word("the other end of the connection").text for _ in range(count)]
        return parse_connection(words, f"query, character {token.at + 1}")

    def _resolved(self, name: str) -> Node:
        token = self._word(f"the id of a {name}")
        if self._resolve is None:
            raise self._error(token.at, f"{name} {token.text!r}", f"a store that knows {name}s")
        try:
            found = self._resolve(name, token.text)
        except UsageError as error:
            raise self._error(token.at, error.got, error.wanted, error.next_step) from error
        return of_connections(found)

    # ---- times ----------------------------------------------------------------------------------

    def _duration(self, token: _Token) -> int:
        try:
            seconds = parse_seconds(token.text)
        except UsageError:
            seconds = -1.0
        if not 0 <= seconds < _MAX_SECONDS:
            raise self._error(token.at, repr(token.text), "a duration such as 90s, 5m, 2h or 1d")
        return round(seconds * 1e9)

    def _time(self) -> int:
        token = self._word("a time: Unix seconds, a date, or 5m ago")
        following = self._peek()
        if not following.is_quoted and following.text.lower() == "ago":
            self._next += 1
            return self._now_ns - self._duration(token)
        if token.text.endswith(" ago"):
            return self._now_ns - self._duration(token._replace(text=token.text[:-4]))
        unix_ns = parse_time(token.text)
        if unix_ns is None:
            raise self._error(
                token.at,
                repr(token.text),
                "a time: Unix seconds, a date such as 2026-01-31T12:00:00Z, or 5m ago",
            )
        return unix_ns


def parse_time(text: str) -> int | None:
    """Return a time in Unix ns, exactly, from Unix seconds or an ISO date, or None."""
    if re.fullmatch(r"\d{1,11}(\.\d*)?", text):
        return int(Decimal(text) * 10**9)
    # datetime has six digits; the rest is added here.
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(\.\d+)?(Z|[+-]\d\d:?\d\d)?", text
    )
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(
            match[1] + (match[3] or "Z") if len(match[1]) > 10 else match[1]
        )
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + int(Decimal(f"0{match[2] or '.0'}") * 10**9)


def _number(text: str, most: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= most else None


def _net(text: str, side: Side) -> Address | None:
    try:
        net = ipaddress.ip_network(text)
    except ValueError:
        return None
    low, high = net.network_address.packed, net.broadcast_address.packed
    prefix = MAPPED if net.version == 4 else b""
    return Address(prefix + low, prefix + high, side)
