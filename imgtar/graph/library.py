"""Documents by descriptor: fetched once, parsed once, their exact bytes kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from imgtar.errors import Refused
from imgtar.model import documents, mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import ImageConfig, Index, Manifest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import shown

__all__ = ["Fetch", "Library"]

Fetch = Callable[[Descriptor, int], bytes | None]
"""Return the verified bytes of a small document, or ``None`` when they are not here. The number caps their size."""

_T = TypeVar("_T")
_WRONG = "whoever wrote the descriptor is wrong: make the archive again from its source"


class Library:
    """The small documents of one or several places, asked in order."""

    def __init__(self, fetches: Iterable[Fetch], limits: Limits = DEFAULT_LIMITS) -> None:
        self._fetches = list(fetches)
        self._limits = limits
        self._parsed: dict[tuple[Digest, str, str], tuple[int, object]] = {}
        self._extra: dict[Digest, bytes] = {}

    def add(self, digest: Digest, raw: bytes) -> None:
        """Put a document on the shelf that imgtar wrote itself."""
        self._extra[digest] = raw

    def then(self, *others: Library) -> Library:
        """A library that looks here first and in the ``others`` after, in their order."""
        return Library([one._fetch_here for one in (self, *others)], self._limits)

    def _fetch_here(self, descriptor: Descriptor, cap: int) -> bytes | None:
        raw = self._extra.get(descriptor.digest)
        if raw is not None:
            return raw
        if descriptor.data is not None:
            return descriptor.data
        for fetch in self._fetches:
            raw = fetch(descriptor, cap)
            if raw is not None:
                return raw
        return None

    def raw(self, descriptor: Descriptor, *, cap: int | None = None) -> bytes | None:
        """Return the bytes of a document, or ``None``. Raises ``E_SIZE`` when another size was promised."""
        limit = self._limits.document if cap is None else cap
        if descriptor.size > limit:
            message = f"the document has {descriptor.size} bytes, the limit is {limit}"
            raise Refused("E_LIMIT", message, where=str(descriptor.digest))
        raw = self._fetch_here(descriptor, limit)
        if raw is not None:
            _sized(len(raw), descriptor)
        return raw

    def kind(self, descriptor: Descriptor) -> str:
        """The media type to go by: the declared one, or what the document is when nothing is declared.

        Raises ``E_TYPE`` when the declared type is unknown but the document is a manifest or an index after all.
        """
        declared = descriptor.media_type
        if mediatype.is_index(declared) or mediatype.is_manifest(declared):
            return declared
        if not descriptor.digest.supported or descriptor.size > self._limits.document:
            return declared
        raw = self.raw(descriptor)
        if raw is None:
            return declared
        if not declared:
            return documents.sniff_document(raw, str(descriptor.digest), self._limits)
        actual = documents.pretended(raw)
        if actual is not None:
            message = f"calls itself {shown(actual)} but its descriptor says {shown(declared)}"
            raise Refused("E_TYPE", message, where=str(descriptor.digest), hint=_WRONG)
        return declared

    def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest behind ``descriptor``, or ``None`` when its bytes are not here."""
        return self._parse(
            descriptor, "manifest", lambda raw, what: documents.parse_manifest(raw, descriptor, what, self._limits)
        )

    def index(self, descriptor: Descriptor) -> Index | None:
        """The index behind ``descriptor``, or ``None`` when its bytes are not here."""
        return self._parse(
            descriptor, "index", lambda raw, what: documents.parse_index(raw, descriptor.media_type, what, self._limits)
        )

    def config(self, descriptor: Descriptor) -> ImageConfig | None:
        """The image config behind ``descriptor``, or ``None`` when its bytes are not here."""
        if not mediatype.is_image_config(descriptor.media_type):
            message = f"{shown(descriptor.media_type)} is not an image config"
            raise Refused("E_TYPE", message, where=str(descriptor.digest))
        return self._parse(
            descriptor, "config", lambda raw, what: documents.parse_config(raw, what, self._limits), self._limits.config
        )

    def _parse(
        self, descriptor: Descriptor, kind: str, parse: Callable[[bytes, str], _T], cap: int | None = None
    ) -> _T | None:
        # Who asks second may say something else of it than who asked first: that is examined each time.
        key = (descriptor.digest, kind, descriptor.media_type)
        known = self._parsed.get(key)
        if known is None:
            raw = self.raw(descriptor, cap=cap)
            if raw is None:
                return None
            known = self._parsed[key] = (len(raw), parse(raw, f"{kind} {descriptor.digest}"))
        _sized(known[0], descriptor)
        return known[1]  # type: ignore[return-value]


def _sized(actual: int, descriptor: Descriptor) -> None:
    if actual != descriptor.size:
        message = f"has {actual} bytes, but a descriptor says {descriptor.size}"
        raise Refused("E_SIZE", message, where=str(descriptor.digest), hint=_WRONG)
