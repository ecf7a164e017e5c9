from __future__ import annotations

import pytest

from perfmeasure import errors


def test_a_message_says_where_what_wanted_and_what_to_do() -> None:
    error = errors.InputError("a.log:3", "a cut line", "a whole line", "copy the file again")
    assert str(error) == "a.log:3: a cut line; wanted a whole line. Copy the file again"


def test_parts_that_are_plain_from_the_rest_may_be_left_out() -> None:
    assert str(errors.MeasurementError("tor", "gave up")) == "tor: gave up"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.PerfmeasureError, 1),
        (errors.MeasurementError, 1),
        (errors.ControlError, 1),
        (errors.UsageError, 2),
        (errors.MissingError, 3),
        (errors.InputError, 4),
        (errors.ModelError, 4),
    ],
)
def test_each_kind_has_its_exit_status(kind: type[errors.PerfmeasureError], status: int) -> None:
    assert kind("a", "b").exit_status == status
    assert issubclass(kind, errors.PerfmeasureError)
