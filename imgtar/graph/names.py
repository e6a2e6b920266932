"""From the annotations of an index entry to the name of an image."""

from __future__ import annotations

from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.reference import Reference

__all__ = ["names_of"]


def names_of(descriptor: Descriptor) -> tuple[tuple[str, ...], tuple[Reference, ...]]:
    """Return what an index entry's annotations call it: the label to show, and the reference if it is a whole name.

    ``io.containerd.image.name`` counts first, then ``org.opencontainers.image.ref.name`` when it has a ``/`` or ``:``.
    A bare tag or a word of somebody's own stays a label: containerd invents ``import-DATE:1`` for it, Docker 29 an
    image named ``1``; imgtar invents nothing (containerd client/import.go, moby daemon/containerd/image_exporter.go).
    """
    full = descriptor.annotations.get(mediatype.CONTAINERD_NAME, "")
    short = descriptor.annotations.get(mediatype.REF_NAME, "")
    for text in (full, short if "/" in short or ":" in short else ""):
        try:
            reference = Reference.parse(text) if text else None
        except Refused:
            continue
        if reference is not None and (reference.tag or reference.digest is None):
            reference = reference.tagged()
            if reference.digest is not None:
                reference = replace(reference, digest=None)
            return (reference.familiar,), (reference,)
    label = full or short
    return ((label,) if label else ()), ()
