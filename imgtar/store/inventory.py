"""What the store holds, asked blob by blob. A blob counts only when it was verified since its file last changed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from imgtar.blob.files import opened, read_window
from imgtar.blob.measure import Measure, measure
from imgtar.errors import ImgtarError, Refused
from imgtar.graph.inventory import Holding, Tagged
from imgtar.graph.library import Library
from imgtar.graph.walk import Walker, images_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.store.held import HeldCache
from imgtar.store.layout import STORE_LIMITS, Entry, Layout

__all__ = ["StoreInventory"]


class StoreInventory:
    """A snapshot of the index, and the blobs as they are."""

    def __init__(self, layout: Layout, entries: Sequence[Entry]) -> None:
        self.label = layout.path
        self.layout = layout
        self.cache = HeldCache(layout.corner)
        self.entries = entries
        self.library = Library([self._document], STORE_LIMITS)
        self._roots = {entry.descriptor.digest for entry in entries}
        self._named = {entry.name.full: entry for entry in reversed(entries) if entry.name}
        self._asked: dict[Digest, Holding | None] = {}
        self._by_diff_id: dict[Digest, list[Descriptor]] | None = None
        self._image_ids: set[Digest] | None = None

    def status(self, digest: Digest) -> os.stat_result | None:
        """The file of a blob; ``None`` when there is none or it is no regular file."""
        try:
            status = os.lstat(self.layout.blob_path(digest))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
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
        with opened(path, status.st_size, path) as content:
            try:
                measured = measure(content, where=path, algorithm=digest.algorithm, diff=diff, limits=STORE_LIMITS)
            except Refused as error:
                if error.code != "E_TRUNC":
                    raise
                return None
        if measured.digest != digest:
            return None
        self.cache.note(digest, status, measured.diff_id)
        return measured

    def _document(self, descriptor: Descriptor, cap: int) -> bytes | None:
        if not descriptor.digest.supported:
            return None
        status = self.status(descriptor.digest)
        if status is None or status.st_size > cap:
            return None
        path = self.layout.blob_path(descriptor.digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            raw = read_window(fd, 0, status.st_size, path)
        finally:
            os.close(fd)
        # A rotten document is as good as none: what needs it then reports it as damaged.
        return raw if Digest.of(raw, descriptor.digest.algorithm) == descriptor.digest else None

    def diff_id_of(self, digest: Digest) -> Digest | None:
        """The diff ID of a held layer, from an earlier reading or from one now."""
        status = self.status(digest)
        if status is None:
            return None
        known = self.cache.get(digest)
        if known is not None and known.diff_id is not None and known.look == HeldCache.look_of(status):
            return known.diff_id
        measured = self.verify(digest, diff=True)
        return measured.diff_id if measured is not None else None

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """A held layer with that diff ID: plain first, then compressed ones, each proved."""
        holding = self.holding(diff_id)
        if holding is not None and holding.sound:
            return Descriptor(mediatype.layer_media_type("none"), diff_id, holding.size)
        for digest in [*self.cache.layers_of(diff_id), *(layer.digest for layer in self._claimed(diff_id))]:
            holding = self.holding(digest)
            if holding is None or not holding.sound or self.diff_id_of(digest) != diff_id:
                continue
            measured_as = next((layer for layer in self._claimed(diff_id) if layer.digest == digest), None)
            if measured_as is not None:
                return Descriptor(measured_as.media_type, digest, holding.size)
        return None

    def _claimed(self, diff_id: Digest) -> list[Descriptor]:
        if self._by_diff_id is None:
            self._by_diff_id = {}
            walker = Walker(self.library, STORE_LIMITS)
            for entry in self.entries:
                try:
                    images = list(images_of(walker.grow(entry.descriptor)))
                except ImgtarError:
                    continue  # A damaged image offers no layers; verify reports it.
                for image in images:
                    if image.manifest is not None:
                        for layer, claimed in zip(image.manifest.layers, image.diff_ids or (), strict=False):
                            self._by_diff_id.setdefault(claimed, []).append(layer)
        return self._by_diff_id.get(diff_id, [])

    def has_root(self, digest: Digest) -> bool:
        """Whether ``index.json`` names it."""
        return digest in self._roots

    def has_image(self, image_id: Digest) -> bool:
        """Whether some root is, or contains, the image with that ID."""
        if self._image_ids is None:
            self._image_ids = set()
            walker = Walker(self.library, STORE_LIMITS)
            for entry in self.entries:
                try:
                    images = list(images_of(walker.grow(entry.descriptor)))
                except ImgtarError:
                    continue  # A damaged image is nobody's parent; verify reports it.
                self._image_ids |= {image.manifest.config.digest for image in images if image.manifest is not None}
        return image_id in self._image_ids

    def tagged(self, name: str) -> Tagged | None:
        """What a full name stands for."""
        entry = self._named.get(name)
        if entry is None:
            return None
        image_id = None
        if mediatype.is_manifest(entry.descriptor.media_type):
            manifest = self.library.manifest(entry.descriptor)
            if manifest is not None and manifest.is_image:
                image_id = manifest.config.digest
        return Tagged(entry.descriptor.digest, image_id)
