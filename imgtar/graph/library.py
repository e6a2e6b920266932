"""Documents by descriptor: fetched once, parsed once, their exact bytes kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from imgtar.errors import Refused
from imgtar.model import documents, mediatype
from imgtar.model.budget import Budget
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
    """The small documents of one or several places, asked in order.

    With a ``budget``, what is kept is charged to it, and of a config only what is needed to plan: see :meth:`whole_config`.
    """

    def __init__(self, fetches: Iterable[Fetch], limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None) -> None:
        self._fetches = list(fetches)
        self._limits = limits
        self._budget = budget
        self._chain: Sequence[Library] = ()
        self._parsed: dict[tuple[Digest, str, str], tuple[int, object]] = {}
        self._kinds: dict[tuple[Digest, str], tuple[int, str]] = {}
        self._image_like: dict[Digest, bool] = {}
        self._extra: dict[Digest, bytes] = {}
        self._whole: tuple[Digest, ImageConfig] | None = None

    def add(self, digest: Digest, raw: bytes) -> None:
        """Put a document on the shelf that imgtar wrote itself."""
        if digest not in self._extra:
            self._keep(raw, digest)
            self._extra[digest] = raw

    def know(self, descriptor: Descriptor, config: ImageConfig) -> None:
        """Take over a config that was parsed elsewhere, and charged already."""
        self._parsed.setdefault(_key(descriptor, "config"), (descriptor.size, config))

    def then(self, *others: Library) -> Library:
        """A library that looks here first and in the ``others`` after, in their order.

        What one of them has parsed is not parsed again: it stays with the one whose document it is.
        """
        library = Library([], self._limits)
        library._chain = [self, *others]
        return library

    def _keep(self, value: object, digest: Digest) -> None:
        if self._budget is not None:
            self._budget.keep(value, str(digest))

    def _fetch_here(self, descriptor: Descriptor, cap: int) -> bytes | None:
        for one in self._chain:
            raw = one._fetch_here(descriptor, cap)
            if raw is not None:
                return raw
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
        known = self._kinds.get((descriptor.digest, declared))
        if known is None:
            raw = self.raw(descriptor)
            if raw is None:
                return declared
            # An index may list one document a hundred thousand times.
            known = self._kinds[descriptor.digest, declared] = (len(raw), self._kind_of(raw, descriptor))
        _sized(known[0], descriptor)
        return known[1]

    def _kind_of(self, raw: bytes, descriptor: Descriptor) -> str:
        declared = descriptor.media_type
        if not declared:
            return documents.sniff_document(raw, str(descriptor.digest), self._limits)
        actual = documents.pretended(raw)
        if actual is not None:
            message = f"calls itself {shown(actual)} but its descriptor says {shown(declared)}"
            raise Refused("E_TYPE", message, where=str(descriptor.digest), hint=_WRONG)
        return declared

    def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest behind ``descriptor``, or ``None`` when its bytes are not here."""
        for one in self._chain:
            found = one.manifest(descriptor)
            if found is not None:
                return found
        return self._parse(
            descriptor, "manifest", lambda raw, what: documents.parse_manifest(raw, descriptor, what, self._limits)
        )

    def index(self, descriptor: Descriptor) -> Index | None:
        """The index behind ``descriptor``, or ``None`` when its bytes are not here."""
        for one in self._chain:
            found = one.index(descriptor)
            if found is not None:
                return found
        return self._parse(
            descriptor, "index", lambda raw, what: documents.parse_index(raw, descriptor.media_type, what, self._limits)
        )

    def config(self, descriptor: Descriptor, *, typed: bool = True) -> ImageConfig | None:
        """The image config behind ``descriptor``, or ``None`` when its bytes are not here.

        Raises ``E_TYPE`` when it is ``typed`` and its media type is that of something else.

        A library with a budget keeps neither labels nor the texts of the history; see :meth:`whole_config`.
        """
        if typed and not mediatype.is_image_config(descriptor.media_type):
            message = f"{shown(descriptor.media_type)} is not an image config"
            raise Refused("E_TYPE", message, where=str(descriptor.digest))
        return self._config(descriptor)

    def _config(self, descriptor: Descriptor) -> ImageConfig | None:
        for one in self._chain:
            found = one._config(descriptor)
            if found is not None:
                return found
        return self._parse(
            descriptor,
            "config",
            lambda raw, what: documents.parse_config(raw, what, self._limits, brief=self._budget is not None),
            self._limits.config,
        )

    def unnamed_config(self, descriptor: Descriptor) -> ImageConfig | None:
        """The image config behind a descriptor of another media type; ``None`` when it is none, or not here.

        Raises ``E_LIMIT`` for a document too large to tell.
        """
        if not descriptor.digest.supported:
            return None
        if descriptor.digest not in self._image_like:
            try:
                raw = self.raw(descriptor, cap=self._limits.config)
            except Refused as error:
                if error.code != "E_JSON":
                    raise
                raw = b""  # It passed by, and is no JSON.
            if raw is None:
                return None
            # A thousand manifests may have one config.
            self._image_like[descriptor.digest] = documents.image_like(raw, self._limits)
        return self._config(descriptor) if self._image_like[descriptor.digest] else None

    def whole_config(self, descriptor: Descriptor) -> ImageConfig | None:
        """All of the config, with its labels and its history: read for whoever asks, and not kept."""
        for one in self._chain:
            found = one.whole_config(descriptor)
            if found is not None:
                return found
        if self._budget is None:
            return self._config(descriptor)
        if self._whole is None or self._whole[0] != descriptor.digest:
            with self._budget.paid():
                raw = self.raw(descriptor, cap=self._limits.config)
            if raw is None:
                return None
            # Images that follow each other may have one config: the last one is remembered.
            self._whole = descriptor.digest, documents.parse_config(raw, f"config {descriptor.digest}", self._limits)
        return self._whole[1]

    def reserve(self, descriptor: Descriptor) -> None:
        """Charge for what :meth:`whole_config` will show, now: what is begun to be shown must not end in the middle."""
        for one in self._chain:
            one.reserve(descriptor)
        if self._budget is not None:
            self.raw(descriptor, cap=self._limits.config)

    def _parse(
        self, descriptor: Descriptor, kind: str, parse: Callable[[bytes, str], _T], cap: int | None = None
    ) -> _T | None:
        # Who asks second may say something else of it than who asked first: that is examined each time.
        key = _key(descriptor, kind)
        known = self._parsed.get(key)
        if known is None:
            raw = self.raw(descriptor, cap=cap)
            if raw is None:
                return None
            value = parse(raw, f"{kind} {descriptor.digest}")
            self._keep(value, descriptor.digest)
            known = self._parsed[key] = (len(raw), value)
        _sized(known[0], descriptor)
        return known[1]  # type: ignore[return-value]


def _key(descriptor: Descriptor, kind: str) -> tuple[Digest, str, str]:
    """What a parsed document is kept under. A config is read alike whatever it is called."""
    return descriptor.digest, kind, "" if kind == "config" else descriptor.media_type


def _sized(actual: int, descriptor: Descriptor) -> None:
    if actual != descriptor.size:
        message = f"has {actual} bytes, but a descriptor says {descriptor.size}"
        raise Refused("E_SIZE", message, where=str(descriptor.digest), hint=_WRONG)
