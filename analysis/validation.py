"""Checks documents against the schemas in ``schema/``, which are the contract with readers."""

from __future__ import annotations

import functools
import importlib.resources
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from perfmeasure import jsonio
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMAS = {
    (kind, version): f"{kind}-{version}.schema.json"
    for kind, version in (
        ("perfmeasure", "1.0"),
        ("onionperf", "1.0"),
        ("onionperf", "2.0"),
        ("onionperf", "3.0"),
        ("onionperf", "3.1"),
        ("onionperf", "4.0"),
    )
}
"""The schema of each type and version that can be checked."""


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """Return a schema of the package as JSON."""
    text = importlib.resources.files("perfmeasure").joinpath("schema", name).read_bytes()
    document: dict[str, Any] = jsonio.loads(text, name)
    return document


def kind_of(document: Mapping[str, Any], where: str) -> str:
    """Return ``TYPE-VERSION`` of a document that has a schema here.

    Raises:
        InputError: it has none.
    """
    kind, version = str(document.get("type")), str(document.get("version"))
    if (kind, version) not in SCHEMAS:
        wanted = ", ".join("-".join(pair) for pair in SCHEMAS)
        got = f"type {kind!r}, version {version!r}, for which there is no schema"
        if not {"type", "version"} <= document.keys():
            got = "JSON without a type and a version, for which there is no schema"
        raise InputError(where, got, wanted)
    return f"{kind}-{version}"


def errors(document: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield each fault as ``path/of/keys: what is wrong``; nothing for a valid document.

    Raises:
        InputError: there is no schema for its type and version.
    """
    kind_of(document, where)
    name = SCHEMAS[document["type"], str(document["version"])]
    validator = jsonschema_rs.Draft7Validator(schema(name))
    for error in validator.iter_errors(document):
        path = "/".join(map(str, error.instance_path)) or "(top)"
        yield f"{path}: {error.message}"
