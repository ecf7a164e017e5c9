"""The recorder's command language: the original Time Machine's, and a few commands beside it.

    query to_file "FILE" index NAME "KEY" [start TS end TS] [mem_only] [subscribe]
    query feed PROGRAM tag TAG index NAME "KEY" …        (NAME, KEY: perfmeasure.recorder.keys)
    find [to_file "FILE" | feed PROGRAM tag TAG] [mem_only] [subscribe] EXPRESSION
    suspend_cutoff "KEY"     unsuspend_cutoff "KEY"     (KEY: of connection4)
    suspend_timeout "KEY"    unsuspend_timeout "KEY"
    set_dyn_class ADDRESS CLASS [orig|resp]             unset_dyn_class ADDRESS
    show stats               show conn "KEY"            show conn sample
    show subscriptions       unsubscribe NUMBER
    print [TEXT]             nop                        help

A command is one line. Words are parted by blanks; a text in quotation marks is one word and has no
escapes. EXPRESSION is what `perfmeasure.recorder.expression` reads; here it stays text, because
what it means depends on the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from perfmeasure.errors import UsageError
from perfmeasure.recorder.classes import Side
from perfmeasure.recorder.keys import INDEXES, Connection, Key, address_bytes, parse_key
from perfmeasure.recorder.predicate import END_OF_TIME_NS, And, Match, Node, Times

MAX_LINE_BYTES = 4096

HELP = (
    'query to_file "FILE" index NAME "KEY" [start TS end TS] [mem_only] [subscribe]',
    'query feed PROGRAM tag TAG index NAME "KEY" [start TS end TS] [mem_only] [subscribe]',
    "    write packets to FILE in the folder queries of the store, or to a program",
    f"    NAME is one of {' '.join(INDEXES)}",
    '    KEY is such as "tcp 1.2.3.4:80 5.6.7.8:88", "tcp 1.2.3.4 5.6.7.8:80" (the port is the',
    '    second\'s), "1.2.3.4 5.6.7.8", "1.2.3.4", "80"; IPv6 in brackets: "[2001:db8::1]:80"',
    "    TS is Unix seconds; mem_only asks only what is indexed in memory",
    "    subscribe goes on with what is recorded from now on",
    'find [to_file "FILE" | feed PROGRAM tag TAG] [mem_only] [subscribe] EXPRESSION',
    "    the same by an expression of perfmeasure query; without to_file and feed, only count",
    'suspend_cutoff "KEY"      unsuspend_cutoff "KEY"     keep all packets of a connection',
    'suspend_timeout "KEY"     unsuspend_timeout "KEY"    do not end it by inactivity',
    "set_dyn_class ADDRESS CLASS [orig|resp]              have its connections be of a class",
    "unset_dyn_class ADDRESS                              have filters decide again",
    'show stats    show conn "KEY"    show conn sample    show subscriptions',
    "unsubscribe NUMBER    print [TEXT]    nop    help",
)
"""What the command ``help`` answers."""

WORDS = (
    "query", "find", "to_file", "feed", "tag", "index", "start", "end", "mem_only", "subscribe",
    "suspend_cutoff", "unsuspend_cutoff", "suspend_timeout", "unsuspend_timeout",
    "set_dyn_class", "unset_dyn_class", "orig", "resp", "show", "stats", "conn", "sample",
    "subscriptions", "unsubscribe", "print", "nop", "help", *INDEXES,
)  # fmt: skip
"""All words of the language, for completion."""

_TOKEN = re.compile(r'\s*(?:"(?P<quoted>[^"]*)"(?=\s|$)|(?P<word>[^\s"]+)(?=\s|$))')
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TIME = re.compile(r"[0-9]{1,10}(\.[0-9]{0,30})?\Z")
_SIDES = {"orig": Side.ORIGINATOR, "resp": Side.RESPONDER}


@dataclass(frozen=True)
class ToFile:
    """Packets go to this file of the store's folder of queries."""

    name: str


@dataclass(frozen=True)
class Feed:
    """Packets go to a program of the client, with a tag that says which query they are of."""

    program: str
    tag: str


@dataclass(frozen=True)
class Query:
    """Packets are asked for.

    Attributes:
        target: where they go; None if they are only counted.
        node: what is asked, by key and time; None if it is ``expression``.
        expression: what is asked otherwise.
        is_mem_only: ask only segments that are being written.
        is_subscribed: go on with what comes.
    """

    target: ToFile | Feed | None
    node: Node | None
    expression: str = ""
    is_mem_only: bool = False
    is_subscribed: bool = False


@dataclass(frozen=True)
class Suspend:
    """The cutoff or the timeout (``what``) of a connection does not hold, or holds again."""

    what: str
    is_suspended: bool
    key: Connection


@dataclass(frozen=True)
class Assign:
    """Connections of an address are of a class; the filters' where ``class_name`` is None."""

    address: bytes
    class_name: str | None
    side: Side = Side.BOTH


@dataclass(frozen=True)
class Show:
    """Something is to be shown: ``stats``, ``sample``, ``subscriptions``, or a connection."""

    what: str
    key: Connection | None = None


@dataclass(frozen=True)
class Unsubscribe:
    """A subscription ends."""

    number: int


@dataclass(frozen=True)
class Print:
    """Lines are answered."""

    lines: tuple[str, ...] = ()


Command = Query | Suspend | Assign | Show | Unsubscribe | Print


class _Token(NamedTuple):
    text: str
    at: int
    is_quoted: bool


def parse(line: str) -> Command:
    """Return what a line commands; nothing is done by an empty one.

    Raises:
        UsageError: it is no command. The message begins as the original's: ``PARSER ERROR``, ``NO
            SUCH INDEX`` or ``QUERY KEY UNDEFINED``.
    """
    return _Parser(line).command()


class _Parser:
    def __init__(self, line: str) -> None:
        self._line = line.rstrip()
        self._at = 0

    # ---- words ----------------------------------------------------------------------------------

    def _error(self, at: int, got: str, wanted: str) -> UsageError:
        return UsageError(f"PARSER ERROR - character {at + 1}", got, wanted)

    def _peek(self) -> _Token | None:
        """Return the next word without taking it; None at the end."""
        if self._at >= len(self._line):
            return None
        match = _TOKEN.match(self._line, self._at)
        if match is None:
            rest = self._line[self._at :]
            at = self._at + len(rest) - len(rest.lstrip())
            raise self._error(
                at, f"{rest.strip()[:20]!r}", "words, and texts in a pair of quotation marks"
            )
        kind = str(match.lastgroup)
        return _Token(match[kind], match.start(kind), kind == "quoted")

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._error(len(self._line), "the line ends", wanted)
        self._at = token.at + len(token.text) + token.is_quoted
        return token

    def _is_next(self, *words: str) -> bool:
        """Take the next word if it is one of these."""
        token = self._peek()
        if token is None or token.is_quoted or token.text not in words:
            return False
        self._next("")
        return True

    def _word(self, *words: str) -> str:
        """Take the next word, which must be one of these."""
        wanted = " or ".join(words)
        token = self._next(wanted)
        if token.is_quoted or token.text not in words:
            raise self._error(token.at, f"{token.text!r}", wanted)
        return token.text

    def _quoted(self, wanted: str) -> _Token:
        token = self._next(wanted)
        if not token.is_quoted:
            raise self._error(token.at, f"{token.text!r}", f"{wanted}, in quotation marks")
        return token

    def _name(self, wanted: str) -> str:
        token = self._next(wanted)
        if not _NAME.match(token.text):
            raise self._error(
                token.at, f"{token.text!r}", f"{wanted}: up to 64 letters, digits, _ and -"
            )
        return token.text

    def _ends(self) -> None:
        token = self._peek()
        if token is not None:
            raise self._error(token.at, f"{token.text!r}", "the end of the line")

    # ---- commands -------------------------------------------------------------------------------

    def command(self) -> Command:
        if self._peek() is None:
            return Print()
        token = self._next("a command")
        read = None if token.is_quoted else _COMMANDS.get(token.text)
        if read is None:
            raise self._error(token.at, f"{token.text!r}", f"one of {', '.join(_COMMANDS)}")
        command = read(self, token.text)
        self._ends()
        return command

    def query(self, name: str) -> Command:
        del name
        target = self._target(self._word("to_file", "feed"))
        self._word("index")
        node: Node = Match(self._index_key())
        flags: set[str] = set()
        while (token := self._peek()) is not None:
            flag = self._word("start", "mem_only", "subscribe")
            if flag in flags:
                raise self._error(token.at, f"{flag!r} for the second time", "each flag once")
            flags.add(flag)
            if flag == "start":
                first_ns = self._time()
                self._word("end")
                node = And((node, Times(first_ns, self._time())))
        return Query(
            target, node, is_mem_only="mem_only" in flags, is_subscribed="subscribe" in flags
        )

    def find(self, name: str) -> Command:
        del name
        target, flags = None, set()
        while (token := self._peek()) is not None and not token.is_quoted:
            if token.text in flags or (target is not None and token.text in ("to_file", "feed")):
                raise self._error(token.at, f"{token.text!r} for the second time", "it once")
            if self._is_next("to_file", "feed"):
                target = self._target(token.text)
            elif self._is_next("mem_only", "subscribe"):
                flags.add(token.text)
            else:
                break
        if token is None:
            raise self._error(len(self._line), "the line ends", "an expression, such as port 80")
        if target is None and "subscribe" in flags:
            raise self._error(0, "subscribe without a target", "to_file or feed before it")
        expression, self._at = self._line[self._at :].strip(), len(self._line)
        return Query(target, None, expression, "mem_only" in flags, "subscribe" in flags)

    def _target(self, kind: str) -> ToFile | Feed:
        if kind == "feed":
            program = self._name("the name of a program")
            self._word("tag")
            return Feed(program, self._name("a tag"))
        token = self._next("the name of a file")
        if not _FILE_NAME.match(token.text) or token.text.endswith(".part"):
            raise self._error(
                token.at,
                f"{token.text!r}",
                "the name of a file in the folder queries of the store: up to 100 letters, "
                "digits, _, - and ., not with . at its beginning or .part at its end",
            )
        return ToFile(token.text)

    def _index_key(self) -> Key:
        index = self._next("the name of an index")
        if index.text not in INDEXES:
            raise UsageError(f"NO SUCH INDEX - {index.text!r}", "unknown", ", ".join(INDEXES))
        token = self._quoted("a key")
        try:
            return parse_key(index.text, token.text)
        except UsageError as error:
            raise UsageError(
                f"QUERY KEY UNDEFINED - {error.where}", error.got, error.wanted
            ) from error

    def _connection(self) -> Connection:
        token = self._quoted("the key of a connection")
        try:
            key = parse_key("connection4", token.text)
        except UsageError as error:
            raise UsageError(
                f"QUERY KEY UNDEFINED - {error.where}", error.got, error.wanted
            ) from error
        if not isinstance(key, Connection):  # pragma: no cover - for the type checker
            raise TypeError(key)
        return key

    def _time(self) -> int:
        token = self._next("a time in Unix seconds")
        if token.is_quoted or not _TIME.match(token.text):
            raise self._error(token.at, f"{token.text!r}", "a time in Unix seconds")
        return min(int(Decimal(token.text) * 10**9), END_OF_TIME_NS)

    def suspend(self, name: str) -> Command:
        verb, _, what = name.partition("_")
        return Suspend(what, verb == "suspend", self._connection())

    def _address(self) -> bytes:
        token = self._next("an address")
        address = address_bytes(token.text)
        if address is None:
            raise self._error(token.at, f"{token.text!r}", "an address, IPv4 or IPv6")
        return address

    def assign(self, name: str) -> Command:
        address = self._address()
        if name == "unset_dyn_class":
            return Assign(address, None)
        class_name = self._name("the name of a class")
        if self._peek() is None:
            return Assign(address, class_name)
        return Assign(address, class_name, _SIDES[self._word("orig", "resp")])

    def show(self, name: str) -> Command:
        del name
        what = self._word("stats", "conn", "subscriptions")
        if what != "conn":
            return Show(what)
        return Show("sample") if self._is_next("sample") else Show("conn", self._connection())

    def unsubscribe(self, name: str) -> Command:
        del name
        token = self._next("the number of a subscription")
        if not (token.text.isascii() and token.text.isdigit() and len(token.text) < 10):
            raise self._error(token.at, f"{token.text!r}", "the number of a subscription")
        return Unsubscribe(int(token.text))

    def words(self, name: str) -> Command:
        if name == "help":
            return Print(HELP)
        token = self._peek() if name == "print" else None
        return Print() if token is None else Print((self._next("").text,))

    def gone(self, name: str) -> Command:
        raise self._error(0, f"{name!r}: Broccoli is no more", "query feed PROGRAM tag TAG …")


_COMMANDS = {
    "query": _Parser.query,
    "find": _Parser.find,
    "suspend_cutoff": _Parser.suspend,
    "unsuspend_cutoff": _Parser.suspend,
    "suspend_timeout": _Parser.suspend,
    "unsuspend_timeout": _Parser.suspend,
    "set_dyn_class": _Parser.assign,
    "unset_dyn_class": _Parser.assign,
    "show": _Parser.show,
    "sh": _Parser.show,
    "unsubscribe": _Parser.unsubscribe,
    "print": _Parser.words,
    "nop": _Parser.words,
    "help": _Parser.words,
    "bro_connect": _Parser.gone,
}
