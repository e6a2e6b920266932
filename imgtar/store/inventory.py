"""What the store holds, asked blob by blob. A blob counts only when it was verified since its file last changed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from imgtar.blob.compression import SNIFF_BYTES, sniff
from imgtar.blob.files import is_damage, opened, read_small, read_window
from imgtar.blob.measure import Measure, is_archive, measure
from imgtar.errors import ImgtarError, Refused
from imgtar.graph.inventory import Holding, Tagged
from imgtar.graph.library import Library
from imgtar.graph.walk import Walker, nodes_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import pretended
from imgtar.model.limits import DEFAULT_LIMITS
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.held import HeldCache
from imgtar.store.images import ImageCache
from imgtar.store.layout import Layout

__all__ = ["StoreInventory", "is_object"]


def is_object(path: str) -> bool:
    """Whether a file may be a JSON object: a store has far more layers than documents, and those need not be read."""
    try:
        return read_small(path, 64).lstrip()[:1] == b"{"
    except (OSError, Refused):
        return False  # Whoever needs it meets the error again.


class StoreInventory:
    """A snapshot of the index, and the blobs as they are.

    ``forgiving``: a document that the disk cannot read counts as damaged, so that the rest can be looked at.
    """

    def __init__(self, layout: Layout, entries: Sequence[Entry], *, forgiving: bool = False) -> None:
        self.forgiving = forgiving
        self.label = layout.path
        self.layout = layout
        self.cache = HeldCache(layout.corner)
        self.entries = entries
        self.library = Library([self.fetch], STORE_LIMITS)
        self._roots: set[Digest] | None = None
        self._named: dict[str, Entry] | None = None
        self._asked: dict[Digest, Holding | None] = {}
        self._images = ImageCache(layout.corner)
        self._learned = False
        self._had: dict[Digest, bool] = {}
        self._sizes: dict[Digest, int | None] = {}
        self._types: dict[Digest, str | None] = {}
        self._borne_out: set[tuple[Digest, Digest]] = set()

    def status(self, digest: Digest) -> os.stat_result | None:
        """The file of a blob; ``None`` when there is none or it is no regular file."""
        try:
            status = os.lstat(self.layout.blob_path(digest))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) or (self.forgiving and is_damage(error)):
                return None
            raise
        return status if stat.S_ISREG(status.st_mode) else None

    def holding(self, digest: Digest) -> Holding | None:
        """See :class:`imgtar.graph.inventory.Inventory`. Reads the blob once if nobody has verified it yet."""
        if digest not in self._asked:
            self._asked[digest] = self._look(digest)
        return self._asked[digest]

    def _look(self, digest: Digest) -> Holding | None:
        status = self.status(digest)
        if status is None:
            # Something else than a file in a blob's place is damage, not absence.
            return Holding(0, sound=False) if os.path.lexists(self.layout.blob_path(digest)) else None
        known = self.cache.get(digest)
        if known is not None and known.look == HeldCache.look_of(status):
            return Holding(status.st_size)
        measured = self.verify(digest, diff=False)
        return Holding(status.st_size, sound=measured is not None)

    def verify(self, digest: Digest, *, diff: bool) -> Measure | None:
        """Read a blob; return its measure when the digest is right (and remember that), else ``None``."""
        status = self.status(digest)
        if status is None:
            return None
        path = self.layout.blob_path(digest)
        try:
            with opened(path, status.st_size, path) as content:
                measured = measure(content, where=path, algorithm=digest.algorithm, diff=diff, limits=STORE_LIMITS)
        except Refused as error:
            if error.code != "E_TRUNC":
                raise
            return None
        except OSError as error:
            if not self.forgiving or not is_damage(error):
                raise
            return None
        if measured.digest != digest:
            return None
        self._note(digest, status, measured.diff_id)
        return measured

    def fetch(self, descriptor: Descriptor, cap: int) -> bytes | None:
        """The bytes of a document, verified (a :data:`imgtar.graph.library.Fetch`)."""
        return self._content(descriptor.digest, cap)

    def _content(self, digest: Digest, cap: int) -> bytes | None:
        if not digest.supported:
            return None
        status = self.status(digest)
        if status is None or status.st_size > cap:
            return None
        path = self.layout.blob_path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                raw = read_window(fd, 0, status.st_size, path)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if not self.forgiving or not is_damage(error):
                raise
            return None
        # A rotten document is as good as none: what needs it then reports it as damaged.
        return raw if Digest.of(raw, digest.algorithm) == digest else None

    def document(self, digest: Digest, cap: int = DEFAULT_LIMITS.config) -> bytes | None:
        """The bytes of a document that is here, whole and not too large; ``None`` otherwise, whatever the reason."""
        try:
            return self._content(digest, cap)
        except (ImgtarError, OSError):
            return None  # For those who only look around; who needs the document meets the error again.

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """See :class:`imgtar.graph.inventory.Inventory`. The note that this renews may have been wrong."""
        known = self._noted_diff_id(digest)
        return known if known is not None and claimed in (None, known) else self.measured_diff_id(digest)

    def measured_diff_id(self, digest: Digest) -> Digest | None:
        """The diff ID of a held layer, from a reading now."""
        measured = self.verify(digest, diff=True)
        return measured.diff_id if measured is not None else None

    def other_diff_id(self, digest: Digest, claimed: Digest) -> Digest | None:
        """See :class:`imgtar.graph.claims.Witness`. What nobody has measured yet is not read for this."""
        if (digest, claimed) in self._borne_out:
            return None
        known = self._noted_diff_id(digest)
        if known == claimed:
            self._borne_out.add((digest, claimed))
            return None
        actual = self.measured_diff_id(digest) if known is not None else None
        return actual if actual != claimed else None

    def renew_note(self, digest: Digest, status: os.stat_result, measured: Measure) -> Digest | None:
        """Write the note of a blob anew where it is not what was measured; return a diff ID that it said falsely.

        ``status`` is of before the reading, so that a file that was changed meanwhile does not pass for what was read.
        """
        known = self.cache.get(digest)
        if known is None or known.look != HeldCache.look_of(status):
            self._note(digest, status, measured.diff_id)
            return None
        if measured.diff_id in (None, known.diff_id):
            return None
        self._note(digest, status, measured.diff_id)
        return known.diff_id

    def _note(self, digest: Digest, status: os.stat_result, diff_id: Digest | None) -> None:
        self.cache.note(digest, status, diff_id)
        self._borne_out.clear()  # It may have been the old note that bore a claim out.

    def recheck_images(self) -> int:
        """Drop what the cache of images says otherwise than the documents do; return how many lines that were."""
        return self._images.recheck(self.document)

    def _noted_diff_id(self, digest: Digest) -> Digest | None:
        status = self.status(digest)
        known = self.cache.get(digest) if status is not None else None
        return (
            known.diff_id
            if status is not None and known is not None and known.look == HeldCache.look_of(status)
            else None
        )

    def size_of(self, digest: Digest) -> int | None:
        """See :class:`imgtar.graph.claims.Witness`."""
        if digest not in self._sizes:
            status = self.status(digest)
            self._sizes[digest] = status.st_size if status is not None else None
        return self._sizes[digest]

    def document_type(self, digest: Digest) -> str | None:
        """See :class:`imgtar.graph.inventory.Inventory`. Of what is no document only the beginning is read."""
        if digest not in self._types:
            may_be = is_object(self.layout.blob_path(digest))
            raw = self.document(digest, DEFAULT_LIMITS.document) if may_be else None
            self._types[digest] = pretended(raw) if raw is not None else None
        return self._types[digest]

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """A held layer with that diff ID: plain first, then compressed ones, each proved."""
        holding = self.holding(diff_id)
        if holding is not None and holding.sound:
            return Descriptor(mediatype.layer_media_type("none"), diff_id, holding.size)
        seen: set[Digest] = set()
        for digest in self._claimed(diff_id):
            if digest in seen or not digest.supported:
                continue
            seen.add(digest)
            holding = self.holding(digest)
            if holding is not None and holding.sound and self.diff_id_of(digest) == diff_id:
                return Descriptor(self._layer_type(digest), digest, holding.size)
        return None

    def _claimed(self, diff_id: Digest) -> Iterator[Digest]:
        """Layers that may have that diff ID. One place after the other: most are found in the first."""
        yield from self.cache.layers_of(diff_id)
        yield from self._images.layers_of(diff_id)
        if self._learn():
            yield from self._images.layers_of(diff_id)

    def is_archive(self, digest: Digest) -> bool:
        """Whether engines could unpack a held blob as a layer."""
        path, status = self.layout.blob_path(digest), self.status(digest)
        with opened(path, status.st_size if status is not None else 0, path) as content:
            return is_archive(content, path, STORE_LIMITS)

    def _layer_type(self, digest: Digest) -> str:
        """The media type by the first bytes of a stored layer, whatever the image called it that brought it."""
        path = self.layout.blob_path(digest)
        head = bytearray(SNIFF_BYTES)
        with opened(path, SNIFF_BYTES, path) as content:
            count = content.readinto(memoryview(head))
        try:
            return mediatype.layer_media_type(sniff(bytes(head[:count])))
        except ValueError:
            return mediatype.DOCKER_LAYER  # bzip2, xz: it promises nothing, so every reader looks at the bytes.

    def _learn(self) -> bool:
        """Look at every image that is not in the cache, at most once; return whether there was one."""
        if self._learned:
            return False
        self._learned = True
        return self._images.learn(dict.fromkeys(entry.digest for entry in self.entries), self.document, self.status)

    def note_images(self, documents: Iterable[Digest], roots: int) -> None:
        """Remember what manifests and indexes refer to that were brought in, while they are at hand."""
        self._images.add(documents, self.document, roots)

    def has_root(self, digest: Digest) -> bool:
        """Whether ``index.json`` names it."""
        if self._roots is None:
            self._roots = {entry.digest for entry in self.entries}
        return digest in self._roots

    def has_image(self, identity: Digest) -> bool:
        """See :class:`imgtar.graph.inventory.Inventory`. The cache says where to look, the documents decide."""
        if identity not in self._had:
            self._had[identity] = (
                identity.supported
                # An image whose config or manifest is gone is not held: mostly this is all there is to ask.
                and self.status(identity) is not None
                and (self._below_a_root(identity) or (self._learn() and self._below_a_root(identity)))
            )
        return self._had[identity]

    def _below_a_root(self, identity: Digest) -> bool:
        above = self._images.above(identity)
        return any(self._contains(entry.descriptor, identity) for entry in self.entries if entry.digest in above)

    def _contains(self, root: Descriptor, identity: Digest) -> bool:
        try:
            nodes = list(nodes_of(Walker(self.library, STORE_LIMITS).grow(root)))
        except ImgtarError:
            return False  # A damaged image is nobody's parent; verify reports it.
        return any(
            (node.descriptor.digest == identity and (node.index is not None or node.manifest is not None))
            or (node.config is not None and node.manifest is not None and node.manifest.config.digest == identity)
            for node in nodes
        )

    def tagged(self, name: str) -> Tagged | None:
        """What a full name stands for."""
        if self._named is None:
            self._named = {entry.name.full: entry for entry in reversed(self.entries) if entry.name}
        entry = self._named.get(name)
        if entry is None:
            return None
        image_id = None
        if mediatype.is_manifest(entry.descriptor.media_type):
            try:
                manifest = self.library.manifest(entry.descriptor)
                # What calls itself an image is one, and its config need not be read.
                image = manifest is not None and (
                    manifest.is_image or Walker(self.library, STORE_LIMITS).grow(entry.descriptor).is_image
                )
            except Refused:
                manifest, image = None, False  # What cannot be read keeps no name from being given to something else.
            if manifest is not None and image:
                image_id = manifest.config.digest
        return Tagged(entry.digest, image_id)
