"""Findings as lines on standard error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imgtar.cli.console import tell
from imgtar.text import printable

__all__ = ["show_findings"]


def show_findings(findings: Iterable[Any]) -> None:
    """Write each finding, and its next step where that is not the one just said."""
    said = ""
    for finding in findings:
        text = printable(f"{finding.subject}: {finding.message}", limit=None)
        tell(f"imgtar: {finding.severity}[{finding.code}]: {text}\n")
        # Ten layers of one base want one and the same next step: it is said once.
        if finding.hint and finding.hint != said:
            tell(f"hint: {printable(finding.hint, limit=None)}\n")
        said = finding.hint
