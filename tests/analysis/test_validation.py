from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from perfmeasure.analysis import database, pipeline, validation
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "perfmeasure-1.0.schema.json"


@pytest.fixture(scope="module")
def document(fixtures: Path) -> dict[str, Any]:
    return pipeline.analyze([fixtures / "onionperf-run"], nickname="testnet")


def test_a_real_database_is_valid_by_both_validators(document: dict[str, Any]) -> None:
    assert list(validation.errors(document, "db")) == []
    schema = validation.schema(SCHEMA)
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(document)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("tgen/transfers/stream:0/filesize_bytes", "many", '"many" is not of type "integer"'),
        ("tgen/transfers/stream:0/method", "POST", "POST"),
        ("tgen/transfers/stream:0/links/guard", "nobody", "nobody"),
        ("tgen/transfers/stream:0/phases/connect", -1, "-1"),
        ("tor/streams/16/unix_ts_start", None, "null"),
        ("tor/circuits/16/path", [], "[]"),
        ("measurement_ip", 7, "7"),
    ],
)
def test_a_fault_is_named_with_its_full_path(
    document: dict[str, Any], path: str, value: object, words: str
) -> None:
    *keys, last = path.split("/")
    record = document["data"]["testnet"]
    for key in keys:
        record = record[key]
    old = record[last]
    record[last] = value
    try:
        faults = list(validation.errors(document, "db"))
        assert not jsonschema.Draft7Validator(validation.schema(SCHEMA)).is_valid(document)
    finally:
        record[last] = old
    assert any(fault.startswith(f"data/testnet/{path}") and words in fault for fault in faults), (
        faults
    )


def test_a_field_that_nobody_knows_is_a_fault(document: dict[str, Any]) -> None:
    transfer = document["data"]["testnet"]["tgen"]["transfers"]["stream:0"]
    transfer["speed"] = 1
    try:
        [fault] = validation.errors(document, "db")
    finally:
        del transfer["speed"]
    assert "speed" in fault


@pytest.mark.parametrize("other", [{}, {"type": "onionperf", "version": "9"}, {"type": [1]}])
def test_a_document_without_a_schema(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"no schema.*wanted perfmeasure-1\.0"):
        list(validation.errors(other, "db"))


@pytest.mark.parametrize("name", validation.SCHEMAS.values())
def test_every_schema_is_one_of_draft_07(name: str) -> None:
    schema = validation.schema(name)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)


def test_faults_of_the_other_tools_databases_have_their_path(fixtures: Path) -> None:
    other = database.load(fixtures / "onionperf-run/expected.onionperf-3.1.json")
    other["data"]["testnet"]["tor"]["circuits"]["16"]["path"][0][1] = "soon"
    del other["data"]["testnet"]["tgen"]
    assert sorted(fault.partition(": ")[0] for fault in validation.errors(other, "db")) == [
        "data/testnet",
        "data/testnet/tor/circuits/16/path/0/1",
    ]
    assert list(validation.errors({**other, "version": "3.0", "data": {}}, "db")) == []
