"""Layers in another compression: the tar bytes, diff IDs, configs and image IDs stay; blobs and manifests change."""

from __future__ import annotations

import json
import os
from typing import Any

from imgtar.blob.compress import compressing
from imgtar.blob.compression import Compression, sniff
from imgtar.blob.decompress import decompressing
from imgtar.blob.files import opened, write_all
from imgtar.blob.measure import buffer
from imgtar.blob.stream import Readable
from imgtar.blob.workers import Checkpoint, each
from imgtar.errors import Refused, StoreTrouble
from imgtar.events import Event, Report
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.library import Library
from imgtar.graph.plan import Plan, Write
from imgtar.graph.platforms import attested_by
from imgtar.graph.select import Candidate, subject_of
from imgtar.graph.walk import Node, images_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.ports import Blob, Dock, Source, blob_finder

__all__ = ["Recompressed", "recompress"]


class Recompressed:
    """The images of a catalog with other layers: new manifests where something changed, the old ones where not."""

    def __init__(
        self,
        label: str,
        roots: tuple[Root, ...],
        library: Library,
        made: dict[Digest, tuple[str, int]],
        base: Source,
        catalog: Catalog,
    ) -> None:
        self.label = label
        self._roots = roots
        self._library = library
        self._made = made
        self._base = base
        self._catalog = catalog

    def survey(self, dock: Dock) -> Catalog:
        """See :class:`imgtar.ports.Source`."""
        return replace(self._catalog, roots=self._roots, library=self._library, offers=_Both(self._made, self._catalog))

    def blob(self, digest: Digest) -> Blob | None:
        """See :class:`imgtar.ports.Source`."""
        made = self._made.get(digest)
        if made is None:
            return self._base.blob(digest)
        path, size = made
        return Blob(size, path, open=lambda: opened(path, size, path))

    def close(self) -> None:
        """Nothing is kept open."""


class _Both:
    def __init__(self, made: dict[Digest, tuple[str, int]], catalog: Catalog) -> None:
        self._made = made
        self._catalog = catalog

    def get(self, digest: Digest, /) -> int | None:
        made = self._made.get(digest)
        return made[1] if made is not None else self._catalog.offers.get(digest)

    def __contains__(self, digest: object, /) -> bool:
        return digest in self._made or digest in self._catalog.offers

    def __iter__(self) -> Any:
        return iter([*self._made, *self._catalog.offers])


def recompress(
    plan: Plan,
    catalog: Catalog,
    source: Source,
    kind: Compression,
    level: int | None,
    scratch: str | None,
    jobs: int,
    report: Report,
) -> Recompressed:
    """Return a source whose images have every layer in compression ``kind``.

    New layers are written to the folder ``scratch``; without one (a dry run) they are only measured.
    """
    fetch = blob_finder([catalog], [source])
    layers: dict[Digest, Write] = {}
    by_digest = {write.digest: write for write in plan.writes}
    without_urls: dict[Digest, Descriptor] = {}
    for root in plan.roots:
        for node in images_of(root.node):
            for layer in node.manifest.layers if node.manifest is not None else ():
                if layer.digest in by_digest:
                    layers[layer.digest] = by_digest[layer.digest]
                    if layer.urls:
                        # podman and skopeo would fetch it from there, though it is carried.
                        without_urls[layer.digest] = replace(_as_oci(layer), urls=())
    report(
        Event(
            "start",
            "compressing layers" if kind is not Compression.NONE else "decompressing layers",
            total=sum(write.size for write in layers.values()),
        )
    )
    made: dict[Digest, tuple[str, int]] = {}
    changed: dict[Digest, Descriptor] = {}
    threads = max(1, jobs // len(layers)) if layers else 1  # Fewer layers than cores: several work on each.

    def work(write: Write, checkpoint: Checkpoint) -> None:
        def follow(event: Event) -> None:
            checkpoint()
            report(event)

        result = _convert(write, fetch(write), kind, level, scratch, threads, follow)
        if result is not None:
            descriptor, path = result
            changed[write.digest] = descriptor
            made[descriptor.digest] = (path, descriptor.size)

    each(work, sorted(layers.values(), key=lambda write: -write.size), jobs)
    report(Event("end"))
    library = Library([]).then(catalog.library)
    rewriter = _Rewriter(library, {**without_urls, **changed})
    replaced = rewriter.replaced(plan)
    roots = []
    dropped = 0
    for planned in plan.roots:
        node = planned.node
        subject = subject_of(Candidate(Root(node.descriptor, planned.labels), node, 0))
        if subject is not None and subject in replaced:
            dropped += 1
            continue
        descriptor = rewriter.rewrite(node)
        roots.append(
            Root(
                descriptor,
                planned.labels or tuple(reference.familiar for reference in planned.references),
                planned.references,
                planned.parent,
            )
        )
    if dropped or rewriter.dropped:
        report(
            Event("notice", f"{dropped + rewriter.dropped} attestations or referrers of changed manifests are left out")
        )
    if changed:
        report(Event("notice", "manifest digests change with the layers; image IDs stay: --layers keep keeps both"))
    return Recompressed(catalog.label, tuple(roots), library, made, source, catalog)


def _convert(
    write: Write, blob: Blob, kind: Compression, level: int | None, scratch: str | None, threads: int, report: Report
) -> tuple[Descriptor, str] | None:
    """Write one layer anew, proving the old one on the way; ``None`` when it has the compression already."""
    assert blob.open is not None
    with blob.open() as content:
        checked = _Checked(content, write, report)
        if sniff(checked.peek()) is kind:
            return None
        new_hash, plain_hash = Digest("sha256", "").hasher(), Digest("sha256", "").hasher()
        size = 0
        path = os.path.join(scratch, write.digest.encoded) if scratch is not None else os.devnull
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o664)

        def emit(data: bytes | memoryview) -> None:
            nonlocal size
            new_hash.update(data)
            size += len(data)
            write_all(fd, data)

        compressor = None
        try:
            compressor = compressing(kind, level, emit, jobs=threads)
            plain = decompressing(checked, sniff(checked.peek()), where=write.title)
            view = buffer()
            while count := plain.readinto(view):
                plain_hash.update(view[:count])
                compressor.write(view[:count])
            compressor.finish()
        except Refused as error:
            # What went into the store was proved: a stream that is broken now is damage of the store.
            raise _damaged(write, error.message) from None
        finally:
            if compressor is not None:
                compressor.abandon()
            os.close(fd)
        checked.prove()
    diff_id = Digest.from_hex(plain_hash.hexdigest())
    if write.diff_id is not None and diff_id != write.diff_id:
        raise StoreTrouble(
            f"{write.title} has the diff ID {diff_id}, its config says {write.diff_id}", where=write.title
        )
    return Descriptor(mediatype.layer_media_type(str(kind)), Digest.from_hex(new_hash.hexdigest()), size), path


def _damaged(write: Write, reason: str) -> StoreTrouble:
    return StoreTrouble(
        f"{write.title} is damaged in the store: {reason}",
        where=str(write.digest),
        hint="load an archive that carries it: that repairs the store",
        details={"digest": str(write.digest)},
    )


class _Checked:
    """A blob that is verified while it is read."""

    def __init__(self, content: Readable, write: Write, report: Report) -> None:
        self._content = content
        self._write = write
        self._report = report
        self._hasher = write.digest.hasher()
        self._head: bytes | None = None
        self._size = 0

    def peek(self) -> bytes:
        if self._head is None:
            head = bytearray(8)
            view, filled = memoryview(head), 0
            while filled < 8 and (count := self._content.readinto(view[filled:])):
                filled += count
            self._head = bytes(view[:filled])
        return self._head

    def readinto(self, target: memoryview, /) -> int:
        if self._head:
            count = min(len(target), len(self._head))
            target[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            count = self._content.readinto(target)
        self._hasher.update(target[:count])
        self._size += count
        self._report(Event("advance", count=count))
        return count

    def prove(self) -> None:
        if self._size != self._write.size or self._hasher.hexdigest() != self._write.digest.encoded:
            raise _damaged(self._write, "its content does not match its digest")


class _Rewriter:
    """Manifests and indexes around changed layers. Where nothing changed, the old bytes stay."""

    def __init__(self, library: Library, changed: dict[Digest, Descriptor]) -> None:
        self._library = library
        self._changed = changed
        self.dropped = 0

    def replaced(self, plan: Plan) -> set[Digest]:
        """The digests of manifests and indexes that will not survive."""
        gone: set[Digest] = set()
        for root in plan.roots:
            for node in images_of(root.node):
                if self._touched(node):
                    gone |= {node.descriptor.digest, root.node.descriptor.digest}
        return gone

    def _touched(self, node: Node) -> bool:
        return node.manifest is not None and any(layer.digest in self._changed for layer in node.manifest.layers)

    def rewrite(self, node: Node) -> Descriptor:
        """Return the descriptor that stands for ``node`` afterwards."""
        if node.index is not None:
            return self._index(node)
        if not node.is_image or not self._touched(node):
            return node.descriptor
        manifest = node.manifest
        assert manifest is not None
        layers = [self._changed.get(layer.digest, _as_oci(layer)) for layer in manifest.layers]
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatype.IMAGE_MANIFEST,
            "config": replace(manifest.config, media_type=mediatype.IMAGE_CONFIG).to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        if manifest.annotations:
            body["annotations"] = dict(sorted(manifest.annotations.items()))
        return self._written(body, mediatype.IMAGE_MANIFEST, node.descriptor)

    def _index(self, node: Node) -> Descriptor:
        assert node.index is not None
        after = [self.rewrite(child) for child in node.children]
        touched = {
            child.descriptor.digest
            for child, descriptor in zip(node.children, after, strict=True)
            if descriptor.digest != child.descriptor.digest
        }
        if not touched:
            return node.descriptor
        children = []
        for child, descriptor in zip(node.children, after, strict=True):
            if attested_by(child) in touched:
                self.dropped += 1
            else:
                children.append(descriptor)
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatype.IMAGE_INDEX,
            "manifests": [child.to_json() for child in children],
        }
        if node.index.annotations:
            body["annotations"] = dict(sorted(node.index.annotations.items()))
        return self._written(body, mediatype.IMAGE_INDEX, node.descriptor)

    def _written(self, body: dict[str, Any], media_type: str, before: Descriptor) -> Descriptor:
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        digest = Digest.of(raw)
        self._library.add(digest, raw)
        return replace(before, media_type=media_type, digest=digest, size=len(raw), data=None)


def _as_oci(layer: Descriptor) -> Descriptor:
    compression = mediatype.layer_compression(layer.media_type)
    if compression is None or mediatype.is_foreign_layer(layer.media_type):
        return layer
    return replace(layer, media_type=mediatype.layer_media_type(compression))
