"""The one place where JSON is read and written (ujson underneath).

Canonical form, used for everything that is published: keys sorted, no white space, non-ASCII
characters escaped, slashes plain, one newline at the end, finite numbers only. Two runs over the
same data give the same bytes.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator
from typing import Any

import ujson  # noqa: TID251 - this is the module that the ban points to

from perfmeasure.errors import InputError


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Pause the cyclic collector; building a large document runs 2 to 4 times faster without it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def loads(text: str | bytes, where: str = "JSON") -> Any:
    """Parse one JSON document.

    Raises:
        InputError: the text is not JSON, or holds NaN or an infinity.
    """
    with no_garbage_collection():
        try:
            if isinstance(text, bytes):
                text = text.decode("utf-8")
            document = ujson.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(where, f"not JSON ({error})", "one JSON document") from error
    # ujson reads the words NaN and Infinity, which JSON does not have.
    if ("NaN" in text or "Infinity" in text) and not _is_finite(document):
        raise InputError(where, "a number that is NaN or infinite", "finite numbers only")
    return document


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return True


def canonical(document: Any) -> bytes:
    """Return the canonical form of ``document``.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    with no_garbage_collection():
        text = ujson.dumps(
            document,
            sort_keys=True,
            escape_forward_slashes=False,
            ensure_ascii=True,
            allow_nan=False,
        )
    return text.encode("ascii") + b"\n"


def compact(document: Any) -> str:
    """Return ``document`` on one line without a newline, in its own key order, for log lines."""
    return str(ujson.dumps(document, escape_forward_slashes=False, allow_nan=False))


def pretty(document: Any) -> str:
    """Return ``document`` indented, for people."""
    return str(
        ujson.dumps(
            document, indent=2, sort_keys=True, escape_forward_slashes=False, allow_nan=False
        )
    )
