"""What an examination has to say about an archive or a store."""

from __future__ import annotations

from typing import Literal

from imgtar.errors import ImgtarError
from imgtar.frozen import frozen

__all__ = ["Finding", "Severity"]

Severity = Literal["error", "warning", "info"]


@frozen
class Finding:
    """One thing found. ``code`` is an error code; ``subject`` is the entry, digest or image it is about."""

    code: str
    severity: Severity
    subject: str
    message: str
    exit_code: int = 5
    hint: str = ""

    @classmethod
    def of(cls, error: ImgtarError) -> Finding:
        """The finding that ``error`` amounts to when it is collected instead of raised."""
        return cls(error.code, "error", error.where, error.message, error.exit_code, error.hint)

    def to_json(self) -> dict[str, str]:
        """The object in ``imgtar.verify/1``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "subject": self.subject,
            "message": self.message,
            "hint": self.hint,
        }
