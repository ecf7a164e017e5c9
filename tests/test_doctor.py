from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from perfmeasure import checks, doctor, jsonio
from perfmeasure.checks import Check, Status

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = Check("thing [red]", Status.MISSING, "no [bold]thing[/]", "apt-get install [thing]")
FINE = Check("other", Status.OK, "1.0")
POOR = Check("third", Status.WARNING, "slow", "wait")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Check, ...]]:
    """What each part finds; tests change it."""
    outcome: dict[str, tuple[Check, ...]] = dict.fromkeys(doctor.PARTS, (FINE,))
    monkeypatch.setattr(
        doctor, "examine", lambda named, _prefix: {part: [*outcome[part]] for part in named}
    )
    return outcome


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(doctor.doctor_command, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 0),
        (("measure",), 0),
        (("flows",), 3),
        (("flows", "--json"), 3),
        (("measure", "flows"), 3),
    ],
)
def test_the_exit_status_is_about_the_named_parts(
    parts: dict[str, tuple[Check, ...]], arguments: tuple[str, ...], status: int
) -> None:
    parts["flows"] = (FINE, BROKEN)
    assert run(*arguments)[0] == status


def test_measure_decides_when_no_part_is_named(parts: dict[str, tuple[Check, ...]]) -> None:
    parts["measure"] = (BROKEN,)
    assert run()[0] == 3


def test_a_warning_is_no_failure(parts: dict[str, tuple[Check, ...]]) -> None:
    parts["flows"] = (POOR,)
    status, output = run("flows")
    assert status == 0
    assert "third: wait" in output


def test_the_table_shows_texts_as_they_are(parts: dict[str, tuple[Check, ...]]) -> None:
    parts["measure"] = (BROKEN,)
    output = run("measure")[1]
    assert "no [bold]thing[/]" in output
    assert "thing [red]: apt-get install [thing]" in output
    assert "flows" not in output


def test_json_has_the_same_facts(parts: dict[str, tuple[Check, ...]]) -> None:
    parts["flows"] = (POOR,)
    document = jsonio.loads(run("--json")[1])
    assert list(document) == ["parts"]
    assert sorted(document["parts"]) == sorted(doctor.PARTS)
    assert document["parts"]["flows"] == [
        {"check": "third", "status": "warning", "found": "slow", "remedy": "wait"}
    ]


def test_an_unknown_part_is_a_usage_error() -> None:
    status, output = run("kitchen")
    assert status == 2
    assert "kitchen" in output


def test_every_check_runs_on_this_machine(tmp_path: Path) -> None:
    outcome = doctor.examine(doctor.PARTS, tmp_path)
    for found in outcome.values():
        for check in found:
            assert check.name
            assert check.found
            assert check.status is not Status.MISSING or check.remedy, check
    assert any(str(tmp_path) in check.found for check in outcome["general"])


def test_every_check_belongs_to_a_part() -> None:
    listed = {check for part in doctor.PARTS.values() for check in part}
    written = {getattr(checks, name) for name in dir(checks) if name.startswith("check_")}
    assert listed == written
