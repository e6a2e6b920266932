"""Where a promise (a planned write) meets what was measured."""

from __future__ import annotations

from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.measure import Measure, is_archive
from imgtar.blob.stream import Peeked, Readable
from imgtar.errors import Refused
from imgtar.graph.plan import Write
from imgtar.text import printable, shown

__all__ = ["posing", "prove", "prove_beginning"]


def prove(write: Write, measured: Measure, where: str) -> None:
    """Raise :class:`Refused` unless ``measured`` is what ``write`` promised: digest, size, and a layer's diff ID."""
    place = f"{where}: {write.title}" if where else write.title
    if measured.size != write.size:
        message = f"has {measured.size} bytes, its descriptor says {write.size}"
        raise Refused("E_SIZE", message, where=place, details={"expected": write.size, "actual": measured.size})
    form = write.catalog.form if write.catalog is not None else ""
    if measured.digest != write.digest:
        # A plain layer of a docker archive has no digest of its own: what the archive claims is the diff ID.
        if form in ("docker", "docker-legacy") and write.diff_id == write.digest:
            raise _diff_id_mismatch(write, measured.digest, where)
        message = f"digest mismatch: expected {write.digest}, actual {measured.digest}"
        hint = "the content is damaged or was changed: make the archive again, or copy it again from its source"
        details = {"expected": str(write.digest), "actual": str(measured.digest)}
        raise Refused("E_DIGEST", message, where=place, hint=hint, details=details)
    if write.inert and measured.archive:
        raise posing(write, place)
    if write.diff_id is None:
        return
    if measured.fault is not None:
        raise Refused(measured.fault.code, measured.fault.message, where=place, hint=measured.fault.hint)
    if measured.diff_id != write.diff_id:
        raise _diff_id_mismatch(write, measured.diff_id, where)


def prove_beginning(write: Write, content: Readable, where: str) -> None:
    """Raise :class:`Refused` when the beginning of a layer shows already that :func:`prove` will."""
    if write.inert:
        if is_archive(content, where):
            raise posing(write, f"{where}: {write.title}")
        return
    told = write.diff_id is not None and write.diff_id != write.digest and write.digest.algorithm == "sha256"
    if told and sniff(Peeked(content, SNIFF_BYTES).head) is Compression.NONE:
        raise _diff_id_mismatch(write, write.digest, where)


def posing(write: Write, where: str) -> Refused:
    """The refusal of an archive that is called something else below the config of an image: engines would run it."""
    return Refused(
        "E_TYPE",
        f"is called {shown(write.media_type)}, but it is an archive, and the config is that of an image: "
        "some engines would run it",
        where=where,
        hint="make the archive again from its source, and do not trust this one",
    )


def _diff_id_mismatch(write: Write, actual: object, place: str) -> Refused:
    message = f"diff ID mismatch in {printable(write.title)}: expected {write.diff_id}, actual {actual}"
    return Refused(
        "E_DIFFID",
        message,
        where=place,
        hint="the layer is not the one that the image config names: make the archive again from its source",
        details={"expected": str(write.diff_id), "actual": str(actual)},
    )
