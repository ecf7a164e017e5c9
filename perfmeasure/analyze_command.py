"""``perfmeasure analyze``: the analysis of logs, and beside it what only the recorder can count."""

from __future__ import annotations

from perfmeasure.analysis.commands import analyze_command
from perfmeasure.recorder.transfers import add_packets

analyze_command.context_settings["obj"] = add_packets

__all__ = ["analyze_command"]
