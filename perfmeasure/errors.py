"""The errors that perfmeasure raises on purpose, and the exit status each one stands for.

Module overview::

    PerfmeasureError - anything we can explain to the person who ran the command   (status 1)
      |- MeasurementError - the measurement failed: a child gave up, nothing bootstrapped (1)
      |  +- ControlError - tor's control port refused or broke off                        (1)
      |- UsageError - options or settings that contradict each other or do not parse     (2)
      |- MissingError - something this machine lacks, with what to install               (3)
      +- InputError - a file we were given cannot be used                                 (4)
         +- ModelError - a GraphML traffic model is malformed                              (4)

Each message answers four questions in this order: where, what was found, what was wanted,
what to do next. Nothing else in the package prints an error; the command line shows these and
turns any other exception into a request for a report.
"""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """The exit status of every ``perfmeasure`` command."""

    DONE = 0
    """The command did what it was asked."""
    FAILED = 1
    """The measurement or the work failed."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    MISSING = 3
    """The machine lacks something; the message says what to install."""
    UNUSABLE_INPUT = 4
    """The input cannot be used."""


class PerfmeasureError(Exception):
    """Base of all errors that are explained to the user.

    Args:
        where: the file with its line, the option, the program or the address concerned.
        got: what was found there.
        wanted: what should have been there, if that is not plain from ``got``.
        next_step: what the user can do about it.
    """

    exit_status = ExitStatus.FAILED

    def __init__(self, where: str, got: str, wanted: str = "", next_step: str = "") -> None:
        super().__init__(where, got, wanted, next_step)
        self.where = where
        self.got = got
        self.wanted = wanted
        self.next_step = next_step

    def __str__(self) -> str:
        text = f"{self.where}: {self.got}"
        if self.wanted:
            text += f"; wanted {self.wanted}"
        if self.next_step:
            text += f". {self.next_step[0].upper()}{self.next_step[1:]}"
        return text


class MeasurementError(PerfmeasureError):
    """The measurement itself failed."""


class ControlError(MeasurementError):
    """Tor's control port refused a command or broke off."""


class UsageError(PerfmeasureError):
    """Options or settings that contradict each other or cannot be parsed."""

    exit_status = ExitStatus.USAGE


class MissingError(PerfmeasureError):
    """Something that the machine lacks; ``next_step`` says what to install."""

    exit_status = ExitStatus.MISSING


class InputError(PerfmeasureError):
    """A file or stream that we were given and cannot use."""

    exit_status = ExitStatus.UNUSABLE_INPUT


class ModelError(InputError):
    """A GraphML traffic model that is malformed; ``where`` names file, node and attribute."""
