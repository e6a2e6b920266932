"""Which documents of the store refer to which digests, so that not every image is read for one question. A cache.

One text file, ``<store>/imgtar/images``, with a line for each manifest and index that was looked at::

    <crc32 of the rest> image <manifest> <config> <layer>=<diff ID> ...     only layers that are not plain
    <crc32 of the rest> manifest <manifest>                                 no image: an artifact, an attestation
    <crc32 of the rest> index <index> <manifest or index> ...

A document never changes under its digest, so a line stays true for ever, and lines are only added; when most of them
are of images that are gone, the file is written anew without these. It only says where to look: a layer that it names
is verified and its diff ID proved, and an image is found by reading the documents, before anybody relies on it. What
is not in it is read. It may be deleted at any time, nothing here is synced, and a torn or strange line counts as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from imgtar.errors import Refused
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.model.shapes import Kind, spelled
from imgtar.store.lines import LineFile

__all__ = ["ImageCache"]

_SPARE = 64
"""So many useless lines are not worth writing the file anew."""
_ALL = 1 << 62

Fetch = Callable[[Digest], bytes | None]
"""The verified bytes of a stored document, ``None`` when it is not here, damaged, or too large for one."""


class ImageCache:
    """The lines of the file, as they are when first asked for. Every failure to read or write means "not known"."""

    def __init__(self, corner: str) -> None:
        self._file = LineFile(os.path.join(corner, "images"))
        self._useless = 0
        self._lines: dict[bytes, bytes] | None = None
        self._diff_ids: dict[bytes, list[bytes]] | None = None
        self._referrers: dict[bytes, list[bytes]] | None = None

    # -- asking

    def layers_of(self, diff_id: Digest) -> list[Digest]:
        """Stored layers that some config calls by this diff ID: a claim."""
        if self._diff_ids is None:
            pairs: dict[bytes, None] = {}
            for line in self._known().values():
                if line.startswith(b"image "):
                    pairs.update(dict.fromkeys(line.split(b" ")[3:]))
            self._diff_ids = {}
            for pair in pairs:
                layer, _, claimed = pair.partition(b"=")
                self._diff_ids.setdefault(claimed, []).append(layer)
        return _digests(self._diff_ids.get(_key(diff_id), []))

    def above(self, digest: Digest) -> set[Digest]:
        """The document with that digest, those that refer to it (as config, manifest or index), and those above."""
        if self._referrers is None:
            self._referrers = {}
            for name, line in self._known().items():
                words = line.split(b" ")
                for below in words[2:3] if words[0] == b"image" else words[2:]:
                    self._referrers.setdefault(below, []).append(name)
        found: set[bytes] = set()
        stack = [_key(digest)]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack += self._referrers.get(name, [])
        return set(_digests(found))

    # -- keeping

    def learn(self, roots: Iterable[Digest], fetch: Fetch, here: Callable[[Digest], object]) -> bool:
        """Read what is not known of ``roots`` and below; return whether that was anything.

        ``here`` tells cheaply whether there is a file. What is absent or damaged today is asked for again next time.
        """
        known = self._known()
        new: list[bytes] = []
        seen: set[bytes] = set()
        stack = [_key(root) for root in roots]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            line = known.get(name)
            if line is None:
                digests = _digests([name])
                line = _describe(digests[0], fetch) if digests and here(digests[0]) is not None else None
                if line is None:
                    continue
                known[name] = line
                new.append(line)
            if line.startswith(b"index "):
                stack += line.split(b" ")[2:]
        useful = [line for name, line in known.items() if name in seen]
        if self._useless + len(known) - len(useful) > len(useful) + _SPARE:
            if self._file.replace(useful):
                self._useless = 0
        else:
            self._file.add(new)
        if new:
            self._diff_ids = self._referrers = None
        return bool(new)

    def add(self, documents: Iterable[Digest], fetch: Fetch, roots: int) -> None:
        """Note documents that came in; nothing is read of what is in the file. ``roots`` is how many the store has."""
        try:
            if os.lstat(self._file.path).st_size > (1 << 20) + (roots << 14):
                os.unlink(
                    self._file.path
                )  # Far more than these can need, and nobody has asked, which would have tidied.
        except OSError:
            pass  # There is none yet.
        self._file.add([line for digest in documents if (line := _describe(digest, fetch)) is not None])

    def recheck(self, fetch: Fetch) -> int:
        """Drop lines that say something else than the documents that are here; return how many."""
        known = self._known()
        wrong = []
        for name, line in known.items():
            digests = _digests([name])
            said = _describe(digests[0], fetch) if digests else None
            if said not in (None, line):
                wrong.append(name)
        for name in wrong:
            del known[name]
        if wrong:
            self._file.replace(known.values())
            self._diff_ids = self._referrers = None
        return len(wrong)

    # -- the lines

    def _known(self) -> dict[bytes, bytes]:
        if self._lines is None:
            self._lines = {}
            contradicted: set[bytes] = set()
            good, bad = self._file.read()
            self._useless = _ALL if bad is None else bad
            for body in good:
                words = body.split(b" ", 2)
                if len(words) < 2 or words[0] not in _KINDS:
                    self._useless += 1
                    continue
                known = self._lines.setdefault(words[1], body)
                if known is not body:
                    self._useless += 1
                    if known != body:
                        contradicted.add(words[1])
            for name in contradicted:
                del self._lines[name]
                self._useless = _ALL
        return self._lines


_KINDS = (b"image", b"manifest", b"index")


def _key(digest: Digest) -> bytes:
    return str(digest).encode("ascii", "replace")


def _digests(names: Iterable[bytes]) -> list[Digest]:
    """Those of ``names`` that can be the digest of a stored blob."""
    found = []
    for name in names:
        try:
            digest = Digest.parse(name.decode("ascii"))
        except (Refused, UnicodeDecodeError):
            continue
        if digest.supported:
            found.append(digest)
    return found


def _describe(digest: Digest, fetch: Fetch) -> bytes | None:
    """The line of a document; ``None`` when it, or the config that it needs, cannot be read.

    This looks at a document less strictly than documents.py does: what is strange about it will be said when it is used.
    """
    value = _object(fetch(digest), "index", "manifest")
    if value is None:
        return None
    if isinstance(value.get("manifests"), list):
        below = [one for one in map(_pointer, value["manifests"]) if one is not None and _may_be_document(one[0])]
        return " ".join(["index", str(digest), *dict.fromkeys(str(one[1]) for one in below)]).encode("ascii")
    config, listed = _pointer(value.get("config")), value.get("layers")
    if config is None or not isinstance(listed, list):
        return None
    layers = [_pointer(layer) for layer in listed]
    plain = f"manifest {digest}".encode("ascii")
    if not all(one and mediatype.is_layer(one[0]) for one in layers):
        return plain
    parsed = _object(fetch(config[1]) if config[1].supported else None, "config")
    if parsed is None:
        # Of an artifact, what it is is known without its config.
        return None if mediatype.is_image_config(config[0]) else plain
    rootfs = parsed.get("rootfs")
    claimed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    claims = _digests(one.encode("ascii", "replace") for one in claimed or () if isinstance(one, str))
    if len(claims) != len(layers):
        return plain  # It contradicts itself, for ever.
    pairs = [f"{one[1]}={diff_id}" for one, diff_id in zip(layers, claims, strict=True) if one and one[1] != diff_id]
    return " ".join(["image", str(digest), str(config[1]), *pairs]).encode("ascii")


def _object(raw: bytes | None, *kinds: Kind) -> dict[str, Any] | None:
    """The document, with the properties of these kinds under their own names."""
    try:
        value = json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        return None
    for kind in kinds:
        value = spelled(kind, value)
    return value if isinstance(value, dict) else None


def _pointer(value: object) -> tuple[str, Digest] | None:
    """The media type and digest of a descriptor."""
    if not isinstance(value, dict):
        return None
    media_type, digest = value.get("mediaType"), value.get("digest")
    try:
        return media_type if isinstance(media_type, str) else "", Digest.parse(
            digest if isinstance(digest, str) else ""
        )
    except Refused:
        return None


def _may_be_document(media_type: str) -> bool:
    return not media_type or mediatype.is_manifest(media_type) or mediatype.is_index(media_type)
