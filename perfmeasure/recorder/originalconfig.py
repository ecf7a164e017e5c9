"""The original Time Machine's configuration file, as the options of ours.

``main { OPTION VALUE; … }`` and ``class "NAME" { OPTION VALUE; … }`` with comments ``# …`` and
``/* … */``. Sizes are in bytes, or in units of 1024, 1024² and 1024³ with k, m and g after them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from perfmeasure.errors import UsageError

# A word may be a number, an address, an identifier; what it is is for the option to say.
_TOKEN = re.compile(
    r"(?P<blank>[ \t\r]+|\#[^\n]*)|(?P<line>\n)|(?P<comment>/\*.*?\*/)|\"(?P<text>[^\"\n]*)\""
    r"|(?P<mark>[{};])|(?P<word>[A-Za-z0-9_.:\-]+)",
    re.DOTALL,
)
_BEGINS = re.compile(r"(?:main|class\s*\"[^\"\n]*\")\s*\{")
_COMMENTS = re.compile(r"#[^\n]*|/\*.*?\*/", re.DOTALL)
_SIZE = re.compile(r"(\d+)\s*([kmgKMG]?)\Z")

_MAIN = {
    "device": "interface",
    "filter": "filter",
    "log_interval": "log_interval",
    "conn_timeout": "connection_timeout",
    "rmtconsole_port": "console_port",
}
_CLASS = {
    "filter": "filter",
    "precedence": "precedence",
    "cutoff": "cutoff",
    "filesize": "segment_size",
    "disk": "budget",
    "dyn_timeout": "dynamic_timeout",
}
_SIZES = ("cutoff", "segment_size", "budget")

_WITHOUT_MEANING = {
    "read_tracefile": "a file is read with -r",
    "workdir": "everything is in the store",
    "indexdir": "everything is in the store",
    "queryfiledir": "a query names its file",
    "logfile": "the logs are in the store",
    "classdir": "everything is in the store",
    "classdir_format": "everything is in the store",
    "filename_format": "everything is in the store",
    "log_level": "all messages are shown",
    "daemon": "a service manager does that",
    "console": "perfmeasure console is the console",
    "rmtconsole": "the console is always there, and asks for a token",
    "rmtconsole_listen_addr": "the console listens on 127.0.0.1",
    "bro_listen": "Broccoli is no more",
    "bro_listen_port": "Broccoli is no more",
    "bro_listen_addr": "Broccoli is no more",
    "bro_connect_str": "Broccoli is no more",
    "tweak_capture_thread": "there is no such thread",
    "profilepath": "there is no profile",
    "index": "all indexes are kept, on disk",
    "max_index_entries": "indexes have no such limit",
    "max_subscriptions": "there may be 64",
    "mem": "packets are written at once, and the page cache holds the latest",
    "pkts_to_disk": "packets are written at once",
}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def is_original(text: str) -> bool:
    """Return whether a text is the original's configuration, by how it begins."""
    return _BEGINS.match(_COMMENTS.sub(" ", text).lstrip(" \t\r\n;")) is not None


def translate(text: str, where: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """Return the options of ``main``, of each class, and warnings, all by our names.

    Raises:
        UsageError: it does not parse, or a class is defined twice.
    """
    main: dict[str, Any] = {"promiscuous": True}  # the original always is
    classes: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    tokens = _tokens(text, where)
    while tokens:
        token = tokens.pop(0)
        if token == ("mark", ";", token.line):
            continue
        if token.kind == "word" and token.text == "main":
            _block(tokens, where, _MAIN, main, warnings)
        elif token.kind == "word" and token.text == "class":
            name = _next(tokens, where, token.line)
            if name.kind != "text":
                raise _error(where, name, 'a name, as in class "all"')
            if name.text in classes:
                raise _error(where, name, "each class once")
            classes[name.text] = {}
            _block(tokens, where, _CLASS, classes[name.text], warnings)
        else:
            raise _error(where, token, 'main { … } or class "NAME" { … }')
    return main, classes, warnings


def _tokens(text: str, where: str) -> list[_Token]:
    tokens = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"{where}:{line}", f"{text[at]!r}", "an option, or its value")
        kind = str(match.lastgroup)
        if kind in ("text", "mark", "word"):
            tokens.append(_Token(kind, match[kind], line))
        line += match[0].count("\n")
        at = match.end()
    return tokens


def _error(where: str, token: _Token, wanted: str) -> UsageError:
    return UsageError(f"{where}:{token.line}", f"{token.text!r}", wanted)


def _next(tokens: list[_Token], where: str, line: int) -> _Token:
    if not tokens:
        raise UsageError(f"{where}:{line}", "the file ends here", "a closing }")
    return tokens.pop(0)


def _block(
    tokens: list[_Token], where: str, known: dict[str, str], into: dict[str, Any],
    warnings: list[str],
) -> None:  # fmt: skip
    token = _next(tokens, where, tokens[0].line if tokens else 1)
    if token.text != "{":
        raise _error(where, token, "{")
    while (token := _next(tokens, where, token.line)).text != "}" or token.kind == "text":
        if token.kind == "mark" and token.text == ";":
            continue
        if token.kind != "word":
            raise _error(where, token, "an option")
        values: list[_Token] = []
        while tokens and not (tokens[0].kind == "mark" and tokens[0].text in ";}"):
            values.append(tokens.pop(0))
        option = known.get(token.text)
        if option is not None:
            into[option] = _value(where, token, option, values)
        elif token.text in _WITHOUT_MEANING:
            why = _WITHOUT_MEANING[token.text]
            warnings.append(f"{where}:{token.line}: option {token.text} has no effect: {why}")
        else:
            warnings.append(f"{where}:{token.line}: option {token.text} is not known")


def _value(where: str, token: _Token, option: str, values: list[_Token]) -> Any:
    text = " ".join(value.text for value in values)
    if option in _SIZES:
        if text in ("no", "unlimited"):
            return "none"
        size = _SIZE.match(text)
        if size is None:
            raise UsageError(f"{where}:{token.line}", f"{token.text} {text}", "such as 15k or 2 g")
        return int(size[1]) * 1024 ** " kmg".index(size[2].lower() or " ")
    if len(values) != 1:
        raise UsageError(f"{where}:{token.line}", f"{token.text} {text}", "one value")
    if option in ("precedence", "console_port"):
        if not text.isdecimal():
            raise UsageError(f"{where}:{token.line}", f"{token.text} {text}", "a number")
        return int(text)
    return text
