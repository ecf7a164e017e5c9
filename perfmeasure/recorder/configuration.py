"""The recorder's configuration: TOML, or the original Time Machine's file.

Every option has a default. An option that is not known, or says nothing here, is named in a warning
and otherwise has no effect; a value that cannot be is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfmeasure.errors import InputError, UsageError
from perfmeasure.recorder import originalconfig
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.writer import Limits
from perfmeasure.units import parse_bytes, parse_seconds

DEFAULT_CLASS = "all"

# name of an option: name of the field, kind of the value
_MAIN = {
    "interface": ("interface", "text"),
    "promiscuous": ("is_promiscuous", "truth"),
    "filter": ("filter", "text"),
    "log_interval": ("log_interval_seconds", "seconds"),
    "console_port": ("console_port", "port"),
    "connection_timeout": ("timeout_seconds", "seconds"),
    "end_by_flags": ("ends_by_flags", "truth"),
}
_CLASS = {
    "filter": ("filter", "text"),
    "precedence": ("precedence", "number"),
    "cutoff": ("cutoff_bytes", "bytes"),
    "dynamic_timeout": ("dynamic_timeout_seconds", "seconds"),
    "segment_size": ("segment_bytes", "bytes"),
    "segment_time": ("segment_seconds", "seconds"),
    "budget": ("budget_bytes", "bytes"),
}
_RULES = ("timeout_seconds", "ends_by_flags")
_LIMITS = ("segment_bytes", "segment_seconds", "budget_bytes")
_SEGMENTS_OF_BUDGET = 8
"""How many segments a small budget has, where their size is not given."""
_MAY_BE_NONE = ("cutoff_bytes", "budget_bytes")


def default_classes() -> tuple[PacketClass, ...]:
    """Return what is recorded without a configuration: everything, in one class."""
    return (PacketClass(DEFAULT_CLASS),)


@dataclass(frozen=True)
class Setup:
    """What is recorded, and how.

    Attributes:
        classes: at least one.
        rules: when connections end.
        interface: to capture on, unless the command line says.
        is_promiscuous: whether frames for other stations are taken.
        filter: in pcap's language, for everything that is captured; empty takes all.
        log_interval_seconds: between lines of the statistics.
        console_port: of the console, on 127.0.0.1; 0 for any that is free.
        warnings: what the file asks for in vain.
    """

    classes: tuple[PacketClass, ...] = field(default_factory=default_classes)
    rules: Rules = field(default_factory=Rules)
    interface: str = ""
    is_promiscuous: bool = False
    filter: str = ""
    log_interval_seconds: float = 60.0
    console_port: int = 0
    warnings: tuple[str, ...] = ()


def read_setup(path: Path) -> Setup:
    """Read a configuration file of either kind, told apart by its content.

    Raises:
        InputError: it cannot be read.
        UsageError: it does not parse, or a value in it cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(str(path), f"cannot be read ({why})", "a configuration file") from error
    if originalconfig.is_original(text):
        return _setup(str(path), *originalconfig.translate(text, str(path)))
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(str(path), f"does not parse as TOML: {error}") from error
    classes = content.pop("classes", {})
    if not isinstance(classes, dict) or not all(isinstance(c, dict) for c in classes.values()):
        raise UsageError(str(path), "classes is no table of tables", "[classes.NAME]")
    return _setup(str(path), content, classes, [])


def setup_of_options(options: dict[str, Any]) -> Setup:
    """Return the setup of one class that takes everything, from options of the command line.

    Raises:
        UsageError: a value cannot be.
    """
    main = {name: value for name, value in options.items() if name in _MAIN}
    of_class = {name: value for name, value in options.items() if name in _CLASS}
    return _setup("", main, {DEFAULT_CLASS: of_class}, [])


def _setup(
    where: str, main: dict[str, Any], classes: dict[str, dict[str, Any]], warnings: list[str]
) -> Setup:
    values = _values(where, main, _MAIN, warnings)
    rules = Rules(**{name: values.pop(name) for name in _RULES if name in values})
    found = []
    for name, options in classes.items():
        inside = where and f"{where}: class {name}"
        of_class = _values(inside, options, _CLASS, warnings)
        limits = {key: of_class.pop(key) for key in _LIMITS if key in of_class}
        if limits.get("budget_bytes") and "segment_bytes" not in limits:
            part = max(limits["budget_bytes"] // _SEGMENTS_OF_BUDGET, 1)
            limits["segment_bytes"] = min(part, Limits.segment_bytes)
        found.append(PacketClass(name, limits=Limits(**limits), **of_class))
    return Setup(
        classes=tuple(found) or default_classes(), rules=rules, warnings=tuple(warnings), **values
    )


def _values(
    where: str, options: dict[str, Any], known: dict[str, tuple[str, str]], warnings: list[str]
) -> dict[str, Any]:
    """Return the values by field; ``where`` is empty for options of the command line."""
    values: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known:
            warnings.append(f"{where}: option {option} is not known and has no effect")
            continue
        name, kind = known[option]
        if name in _MAY_BE_NONE and value == "none":
            values[name] = None
        else:
            option_text = f"{where}: {option}" if where else f"--{option.replace('_', '-')}"
            values[name] = _READERS[kind](value, option_text)
    return values


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(where, f"{value!r}", "a text")
    return value


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(where, f"{value!r}", "true or false")
    return value


def _number(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(where, f"{value!r}", "a whole number")
    return value


def _port(value: Any, where: str) -> int:
    number = _number(value, where)
    if not 0 <= number < 65536:
        raise UsageError(where, f"{number}", "a port up to 65535, or 0 for any that is free")
    return number


def _amount(parse: Callable[[str, str], float]) -> Callable[[Any, str], float]:
    """Return a reader of amounts, with a unit in a text or without one as a number."""

    def read(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(where, f"{value!r}", "a number with a unit, as a text")
        return parse(str(value), where)

    return read


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "text": _text, "port": _port, "truth": _truth, "number": _number, "bytes": _amount(parse_bytes),
    "seconds": _amount(parse_seconds),
}  # fmt: skip
