"""What the store shows of each root, so that ``images`` need not read every manifest and config. A cache.

A line of ``<store>/imgtar/roots`` (see store/lines.py) is a JSON list::

    [key, refers, [[digest, look], ...], [[image ID, platform, created, size], ...]]

``key`` stands for the descriptor of the root without its names: what a document says never changes under its digest.
``refers`` is 1 when something of it names a subject or may. Then every document that was asked for with how its file
looked (store/held.py), "" for one that was not there; then the images as they are shown. The last line of a key counts.

What is shown of an image counts as long as all of its files look so; else the documents are read. Where the question is
only which roots to read (a name, an ID, who refers to whom), the line counts as long as nothing has come since, and what is
found by it is read. So a lie in it can hide something or show a wrong figure, and never make something held, kept or deleted.
Only what was read without an objection is noted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

from imgtar.errors import ImgtarError, Refused
from imgtar.frozen import frozen
from imgtar.graph.candidates import judged
from imgtar.graph.claims import claims_of
from imgtar.graph.library import Library
from imgtar.graph.views import rfc3339
from imgtar.graph.walk import Node, images_of, nodes_of, platform_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.held import HeldCache
from imgtar.store.inventory import StoreInventory
from imgtar.store.lines import LineFile

__all__ = ["RootCache", "RootFacts", "ShownImage", "recheck_caches"]

_SPARE = 64
"""So many useless lines are not worth writing the file anew."""
_KEY = 32
_RULES = b"2 "
"""Another number whenever other documents are refused than before: what an older version took is read again."""
_LINE = re.compile(rb'\["[0-9a-f]{32}",[01],')


@frozen
class ShownImage:
    """One image of a root, as ``imgtar images`` shows it."""

    image_id: str
    platform: str | None
    created: str | None
    size: int


@frozen
class RootFacts:
    """The images of a root, and whether its own document is there and whole."""

    images: tuple[ShownImage, ...]
    absent: bool = False


class RootCache:
    """What is known of the roots of ``inventory``; :meth:`keep` writes down what was learned."""

    def __init__(self, inventory: StoreInventory) -> None:
        self._inventory = inventory
        self._file = LineFile(os.path.join(inventory.layout.corner, "roots"))
        self._blobs = os.path.join(inventory.layout.path, "blobs", "")
        self._facts: dict[str, RootFacts] = {}
        self._new: dict[bytes, bytes] = {}
        self._lineless: set[bytes] = set()
        self._values: dict[str, Any] | None = None
        self._said: set[tuple[str | None, str | None]] = set()
        good, bad = self._file.read()
        self._lines = {body[2 : 2 + _KEY]: body for body in good if _LINE.match(body)}
        self._count = len(good) + bad if bad is not None else 1 << 62

    def facts(self, entry: Entry) -> RootFacts:
        """What to show of a root. Raises :class:`imgtar.errors.ImgtarError` when its documents cannot be used."""
        bare = entry.bare
        found = self._facts.get(bare)
        if found is None:
            found = self._believed(_key(bare), entry.digest)
            if found is None:
                found = self._read(entry, bare)
            self._facts[bare] = found
        return found

    def may_refer(self, entry: Entry) -> bool:
        """Whether something of the root names a subject, or may: then it has to be read to know."""
        return self._line(entry)[_KEY + 4 : _KEY + 5] != b"0"

    def mentions(self, entry: Entry, encoded: str) -> bool:
        """Whether the digest of a document of the root, or the ID of an image of it, may begin with ``encoded``."""
        line = self._line(entry)
        return not line or b":" + encoded.encode() in line or entry.digest.encoded.startswith(encoded)

    def _line(self, entry: Entry) -> bytes:
        """The line of a root, read if there was none; empty when it can have none."""
        bare = entry.bare
        key = _key(bare)
        if key in self._lineless:
            return b""
        line = self._lines.get(key)
        if line is not None and b',""]' in line and not self._still_absent(key):
            self._lines.pop(key)
            line = None
        if line is None:
            with suppress(ImgtarError, OSError):  # Whoever needs it meets the error again.
                self._facts[bare] = self._read(entry, bare)
            line = self._lines.get(key, b"")
            if not line:
                self._lineless.add(key)
        return line

    def _still_absent(self, key: bytes) -> bool:
        """Whether what was not there is not there: a platform that came since has an ID, and may refer to something."""
        try:
            return all(self._looks(digest, look) for digest, look in self._value(key)[2] if look == "")
        except (ValueError, TypeError, LookupError, RecursionError):
            return False

    def keep(self, entries: Sequence[Entry]) -> None:
        """Write what was learned; what is of none of ``entries`` is dropped when it is the greater part."""
        total = self._count + len(self._new)
        if total <= len(entries) + _SPARE:
            self._file.add(list(self._new.values()))
            return
        keys = {_key(entry.bare) for entry in entries}
        useful = [line for key, line in self._lines.items() if key in keys]
        if total > 2 * len(useful) + _SPARE:
            self._file.replace(useful)
        else:
            self._file.add(list(self._new.values()))

    def recheck(self) -> int:
        """Drop lines that say something else than the documents do, or cannot be read; return how many."""
        wrong = 0
        for bare, entry in {entry.bare: entry for entry in self._inventory.entries}.items():
            key = _key(bare)
            line = self._lines.pop(key, None)
            if line is None:
                continue
            try:
                self._read(entry, bare)
            except Refused:
                wrong += 1  # Only what was read without an objection has a line.
                continue
            # What is not there now had a line that was true; it does not count until the same is there again.
            same = _without_looks(line) == _without_looks(self._lines.get(key, line))
            self._lines[key] = line if same else self._lines[key]
            wrong += not same
        if wrong:
            self._file.replace(self._lines.values())
        return wrong

    # -- reading what is not known

    def _read(self, entry: Entry, bare: str) -> RootFacts:
        asked: dict[Digest, str | None] = {}

        def fetch(descriptor: Descriptor, cap: int) -> bytes | None:
            digest = descriptor.digest
            # The look first: a file that is changed while it is read must not pass for what was read.
            status = self._inventory.status(digest) if digest.supported else None
            raw = self._inventory.fetch(descriptor, cap)
            if raw is not None and status is not None:
                asked[digest] = HeldCache.look_of(status)
            else:
                asked[digest] = "" if raw is None and status is None and digest.supported else None
            return raw

        # Each root by itself: what another one says of the same digest is nothing to it.
        node = judged(entry.descriptor, Library([fetch], STORE_LIMITS), self._inventory, STORE_LIMITS)
        if node.fault is not None:
            raise node.fault
        for claim in claims_of(node):
            # When it comes, it may turn out that the claim is wrong.
            digest = claim.descriptor.digest
            if digest.supported and digest not in asked and self._inventory.size_of(digest) is None:
                asked[digest] = ""
        for digest in _identities(node):
            # By these, too, people may ask for it, though nothing had to be read to know them.
            if digest not in asked:
                status = self._inventory.status(digest) if digest.supported else None
                asked[digest] = (HeldCache.look_of(status) if status else "") if digest.supported else None
        facts = RootFacts(tuple(_images(node)), node.absent)
        if not node.absent and None not in asked.values() and entry.descriptor.data is None:
            key = _key(bare)
            documents = [[str(digest), look] for digest, look in asked.items()]
            images = [[one.image_id, one.platform, one.created, one.size] for one in facts.images]
            body = [key.decode(), int(_refers(node)), documents, images]
            if self._values is not None:
                self._values.pop(key.decode(), None)
            self._lines[key] = self._new[key] = json.dumps(body, separators=(",", ":")).encode()
        return facts

    # -- believing what is

    def _believed(self, key: bytes, root: Digest) -> RootFacts | None:
        try:
            _, _, documents, images = self._value(key)
            if (
                type(images) is list
                and documents[0][0] == str(root)
                and all(self._looks(digest, look) for digest, look in documents)
            ):
                return RootFacts(tuple(self._image(*image) for image in images))
        except (ValueError, TypeError, LookupError, RecursionError, Refused):
            pass  # There is no line, or it was not written by us.
        return None

    def _value(self, key: bytes) -> Any:
        """What the line of ``key`` says. All lines are read at one stroke, if none of them prevents that."""
        if self._values is None:
            try:
                self._values = {value[0]: value for value in json.loads(b"[" + b",".join(self._lines.values()) + b"]")}
            except (ValueError, TypeError, LookupError, RecursionError):
                self._values = {}
        return self._values.get(key.decode()) or json.loads(self._lines[key])

    def _looks(self, digest: Any, look: Any) -> bool:
        """Whether the file of a document is as it was when it was read."""
        try:
            return bool(look == HeldCache.look_of(os.lstat(self._blobs + _place(digest))))
        except FileNotFoundError:
            return bool(look == "")
        except OSError:
            return False  # Whoever reads it meets the error again.

    def _image(self, image_id: Any, platform: Any, created: Any, size: Any) -> ShownImage:
        """Raises ``ValueError``, ``TypeError`` or :class:`Refused` for what can be no image."""
        _place(image_id)
        if type(size) is not int or not 0 <= size < 1 << 80:
            raise ValueError
        if (created, platform) not in self._said:  # Mostly they are the same few.
            if not isinstance(platform, str | None):
                raise ValueError
            if created is not None and (not isinstance(created, str) or rfc3339(created) != created):
                raise ValueError
            (platform or "").encode()  # No half of a surrogate pair.
            self._said.add((created, platform))
        return ShownImage(image_id, platform, created, size)


def recheck_caches(inventory: StoreInventory) -> int:
    """Compare what the caches of images and roots say with all documents; return how many lines were dropped."""
    return inventory.recheck_images() + RootCache(inventory).recheck()


def _without_looks(line: bytes) -> object:
    """What a line says of documents, which cannot change, without how their files looked; itself when it is no line."""
    try:
        key, refers, documents, images = json.loads(line)
        return key, refers, [digest for digest, _ in documents], images
    except (ValueError, TypeError, RecursionError):
        return line


def _key(bare: str) -> bytes:
    return sha256(_RULES + bare.encode("utf-8", "replace")).hexdigest()[:_KEY].encode()


def _images(node: Node) -> Iterable[ShownImage]:
    for image in images_of(node):
        manifest, config = image.manifest, image.config
        assert manifest is not None
        if node.index is not None and config is None:
            continue  # A platform that was not shipped.
        platform = platform_of(image)
        yield ShownImage(
            str(manifest.config.digest),
            str(platform) if platform is not None else None,
            rfc3339(config.created) if config is not None else None,
            manifest.config.size + sum(layer.size for layer in manifest.layers),
        )


def _identities(root: Node) -> Iterable[Digest]:
    """Every digest that may be an ID of ``root`` or of something in it (see select.identities)."""
    for node in nodes_of(root):
        yield node.descriptor.digest
        if node.manifest is not None and node.is_image:
            yield node.manifest.config.digest


def _refers(root: Node) -> bool:
    """Whether a document of ``root``, or an annotation inside it, names a subject (see select.subject_of)."""
    for node in nodes_of(root):
        document = node.manifest or node.index
        if document is not None and document.subject is not None:
            return True
        if node is not root and mediatype.CONTAINERD_SUBJECT in node.descriptor.annotations:
            return True
    return False


_PLACE = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def _place(digest: Any) -> str:
    """Where a blob lies below ``blobs/``. Raises ``ValueError`` or ``TypeError`` for what is no digest."""
    if not _PLACE.fullmatch(digest):
        raise ValueError
    return f"{digest[:6]}/{digest[7:]}"
