"""What verify found out, as values: of one archive, of all, and which part of a store was asked about."""

from __future__ import annotations

from typing import Any

from imgtar import __version__
from imgtar.errors import UsageError
from imgtar.frozen import field, frozen, record
from imgtar.graph.catalog import Catalog
from imgtar.graph.finding import Finding
from imgtar.graph.views import requires_view
from imgtar.model.digest import Digest
from imgtar.ops.against import Place
from imgtar.text import shown

__all__ = ["ArchiveVerdict", "Subset", "Verification"]


@frozen
class Subset:
    """One of several parts of a store's blobs, from 1, so that a long check can be spread over days.

    A blob is always in the same part. All parts together are everything.
    """

    part: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Read ``K/N``. Raises :class:`UsageError`."""
        part, slash, of = text.partition("/")
        if slash and part.isascii() and of.isascii() and part.isdigit() and of.isdigit():
            found = cls(int(part), int(of))
            if 1 <= found.part <= found.of <= 10_000:
                return found
        raise UsageError(f"--subset {shown(text)} is no part of a whole", hint="write 1/7, 2/7 … 7/7")

    def has(self, digest: Digest) -> bool:
        """Whether a blob is in this part."""
        return int(digest.encoded[:8], 16) % self.of == self.part - 1


@record
class ArchiveVerdict:
    """What was found out about one archive. Sizes in bytes; ``sha256`` is of the file as it lies on the medium."""

    path: str
    form: str | None = None
    size: int | None = None
    sha256: str | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    blobs_checked: int = 0
    bytes_checked: int = 0
    ballast: int = 0
    findings: list[Finding] = field(default_factory=list)
    catalog: Catalog | None = None

    @property
    def thin(self) -> bool:
        """Whether it leaves out what a receiver is said to have."""
        return self.catalog is not None and self.catalog.thin is not None


@frozen
class Verification:
    """The whole result. ``ok`` means: everything asked for was checked and is good."""

    archives: tuple[ArchiveVerdict, ...]
    started: str
    finished: str
    fast: bool
    strict: bool
    places: tuple[Place, ...] = ()
    there: tuple[Finding, ...] = ()
    subset: Subset | None = None

    @property
    def findings(self) -> list[Finding]:
        """All findings, in order: those about the archives, then those about the places where they are to go."""
        return [*(finding for archive in self.archives for finding in archive.findings), *self.there]

    @property
    def faults(self) -> list[Finding]:
        """The findings that count against it."""
        counting = ("error", "warning") if self.strict else ("error",)
        return [finding for finding in self.findings if finding.severity in counting]

    @property
    def ok(self) -> bool:
        """Whether nothing counts against it."""
        return not self.faults

    @property
    def exit_code(self) -> int:
        """0 when good; else the status of the gravest kind of fault: refused before store, store before missing."""
        codes = {finding.exit_code for finding in self.faults}
        return next((code for code in (6, 5, 7, 3) if code in codes), min(codes, default=0))

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.verify/1``."""
        return {
            "ok": self.ok,
            "depth": "fast" if self.fast else "full",
            "subset": {"part": self.subset.part, "of": self.subset.of} if self.subset is not None else None,
            "archives": [
                {
                    "path": archive.path,
                    "format": archive.form,
                    "size": archive.size,
                    "sha256": archive.sha256,
                    "images": archive.images,
                    "blobs_checked": archive.blobs_checked,
                    "bytes_checked": archive.bytes_checked,
                    "unreferenced_blobs": archive.ballast,
                    "thin": archive.thin,
                    "requires": requires_view(archive.catalog.thin)
                    if archive.catalog is not None and archive.catalog.thin is not None
                    else [],
                }
                for archive in self.archives
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "against": self._against(),
            "tool": f"imgtar {__version__}",
            "started": self.started,
            "finished": self.finished,
        }

    def _against(self) -> dict[str, Any] | None:
        if not self.places:
            return None
        return {
            "where": ", ".join(place.where for place in self.places),
            "missing": [gap.to_json() for place in self.places for gap in place.missing],
            "places": [place.to_json() for place in self.places],
        }
