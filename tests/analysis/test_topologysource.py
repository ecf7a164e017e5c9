from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import graph, pipeline, topologysource, validation
from perfmeasure.errors import InputError
from tests.analysis import service_lines as lines
from tests.analysis import topologies

DAY = lines.DAY
LOG = (
    lines.start(0)
    + lines.instance(0, "m1", "10.0.0.1")
    + lines.service(0, "m1", "web", ("10.0.0.1", 80))
    + lines.connection(
        10, "m1", 1, "web", ("10.0.0.1", 5000, "10.0.0.1", 80), end=20, sent=70, received=30
    )
    + lines.connection(
        90_000, "m1", 2, "web", ("10.0.0.1", 5001, "10.0.0.1", 80), end=90_001, sent=5
    )
)


def written(folder: Path, log: str) -> Path:
    (folder / "services").mkdir()
    (folder / "services/services.log").write_text(log)
    return folder


def test_what_became_of_the_logs_is_said(tmp_path: Path) -> None:
    folder = written(tmp_path, LOG + lines.line("absent", 5, reason="no rights") + "cut")
    said: list[str] = []
    found = topologysource.load([folder], say=said.append)
    assert said == [
        "services/services.log: 1 of 7 lines rejected",
        "  1 rejected: line is cut",
        "  services/services.log:7: line is cut",
        "services: no rights",
    ]
    assert found["coverage"]["matched_bytes"] == 105


def test_documents_that_hold_one(tmp_path: Path) -> None:
    section = topologies.small(tmp_path)
    documents: dict[str, dict[str, Any]] = {
        "topology": graph.enveloped(section),
        "database": {"type": "perfmeasure", "data": {"a": {"topology": section}, "b": {}}},
        "two": {
            "type": "perfmeasure",
            "data": {"a": {"topology": section}, "b": {"topology": section}},
        },
        "none": {"type": "perfmeasure", "data": {"a": {}}},
    }
    for name, document in documents.items():
        (tmp_path / name).write_bytes(jsonio.canonical(document))
    for name in ("topology", "database"):
        assert topologysource.load([tmp_path / name], say=print) == graph.enveloped(section)
    for name, message in (("two", "topologies of a, b"), ("none", "without a topology")):
        with pytest.raises(InputError, match=message):
            topologysource.load([tmp_path / name], say=print)


def test_the_database_has_it_and_is_valid(tmp_path: Path) -> None:
    document = pipeline.analyze([written(tmp_path, LOG)])
    assert list(validation.errors(document, "it")) == []
    node = document["data"]["m1"]
    assert node["topology"]["coverage"]["input_bytes"] == 105
    assert [edge["bytes"] for edge in node["topology"]["edges"]] == [105]
    [log] = document["meta"]["inputs"]
    assert (log["kind"], log["lines"]["used"], log["is_in_data"]) == ("services", 5, True)


def test_of_a_day_only_what_was_sent_on_it(tmp_path: Path) -> None:
    folder = written(tmp_path, LOG)
    for date, size in (("2026-11-22", 100), ("2026-11-23", 5)):
        document = pipeline.analyze([folder], date=date)
        assert document["data"]["m1"]["topology"]["coverage"]["input_bytes"] == size
