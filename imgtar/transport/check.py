"""The sink that only measures: the receiver of verify, inspect and dry runs. Nothing is written anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from imgtar.blob.compression import Compression
from imgtar.blob.decompress import plain
from imgtar.blob.files import is_damage
from imgtar.blob.measure import Measure, Window, measure
from imgtar.blob.stream import Readable
from imgtar.blob.workers import Checkpoint, each_blob, worth_lanes
from imgtar.errors import ImgtarError, LocalTrouble, Refused
from imgtar.events import Event, Report, silent
from imgtar.graph.finding import Finding
from imgtar.graph.inventory import EmptyInventory, Inventory
from imgtar.graph.plan import Plan, Write
from imgtar.model import mediatype
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ports import Blob, Receipt, Staged
from imgtar.proof import prove

__all__ = ["Check"]

_KEPT_TOTAL = 64 << 20
_SMALL = 64 << 10
_NOT_JSON = object()


class Check:
    """A transaction that keeps nothing but small documents in memory.

    With ``collect``, faults in blobs become findings instead of errors; ``bad`` then holds the digests concerned. With
    ``disk`` a bad sector is a fault of the blob too: else it is this machine's trouble, and ends the run. ``proved`` is
    told of each blob that is what it should be, on the thread that read it.
    """

    def __init__(
        self,
        inventory: Inventory | None = None,
        *,
        collect: bool = False,
        disk: bool = False,
        diff: bool = True,
        report: Report = silent,
        limits: Limits = DEFAULT_LIMITS,
        proved: Callable[[Digest, Measure], object] | None = None,
    ) -> None:
        self._inventory: Inventory = inventory if inventory is not None else EmptyInventory()
        self._proved = proved
        self._collect = collect
        self._disk = disk
        self._diff = diff
        self._report = report
        self._limits = limits
        self._budget = _KEPT_TOTAL
        self._mutex = threading.Lock()
        self.findings: list[Finding] = []
        self.bad: set[Digest] = set()
        self.blobs_checked = 0
        self.bytes_checked = 0

    @property
    def inventory(self) -> Inventory:
        """What the supposed receiver holds."""
        return self._inventory

    def stage(
        self,
        content: Readable,
        size: int,
        *,
        where: str,
        claimed: Digest | None = None,
        budget: Budget | None = None,
    ) -> Staged:
        """See :class:`imgtar.ports.Dock`. Keeps what may be a document: JSON, and small enough to be one."""
        kept: bytearray | None = bytearray() if size <= min(self._limits.config, self._budget) else None

        def keep(piece: memoryview) -> None:
            nonlocal kept
            if kept is not None:
                if not kept and size > _SMALL and bytes(piece[:64]).lstrip()[:1] not in (b"{", b"["):
                    kept = None
                else:
                    kept += piece
            self._report(Event("advance", count=len(piece)))

        algorithm = claimed.algorithm if claimed is not None else "sha256"
        # A pre-1.10 archive says nothing of its layers: without their diff IDs there are no configs, no image IDs.
        diff = self._diff or where.endswith("/layer.tar")
        measured = measure(
            content,
            write=keep,
            where=where,
            algorithm=algorithm,
            diff=diff,
            limits=self._limits,
            lanes=worth_lanes(size),
            budget=budget,
        )
        if kept is not None:
            self._budget -= len(kept)
        if kept is not None:
            return Staged(measured, bytes(kept))
        return Staged(measured, _NOT_JSON if size <= self._limits.config and self._budget > size else None)

    def read_staged(self, staged: Staged, cap: int) -> bytes | None:
        """See :class:`imgtar.ports.Dock`."""
        if staged.token is _NOT_JSON:
            raise Refused("E_JSON", "is not valid JSON: it starts with neither an object nor a list")
        return staged.token if isinstance(staged.token, bytes) and len(staged.token) <= cap else None

    def receive(self, plan: Plan, fetch: Callable[[Write], Blob], report: Report, jobs: int) -> None:
        """Measure every planned blob and compare it with what was promised."""
        to_read = [(write, fetch(write)) for write in plan.writes if write.kept is None]
        total = sum(write.size for write, blob in to_read if blob.staged is None)
        report(Event("start", "checking", total=total))
        for write in plan.writes:
            if write.kept is not None:
                self._count(write.size)
        self.examine_all(to_read, jobs)
        report(Event("end"))

    def examine_all(self, blobs: Iterable[tuple[Write, Blob]], jobs: int) -> None:
        """Measure blobs and compare, up to ``jobs`` at once, in the order in which they lie on the medium.

        The file is hashed from its beginning meanwhile: both should not need two passes over a slow medium.
        """
        each_blob(
            lambda pair, checkpoint, lanes: self._examine(*pair, checkpoint, lanes=lanes),
            sorted(blobs, key=lambda pair: (pair[1].offset, -pair[0].size)),
            lambda pair: pair[0].size,
            jobs,
        )

    def _examine(self, write: Write, blob: Blob, checkpoint: Checkpoint, *, lanes: bool) -> None:
        try:
            measured = self._measured(write, blob, checkpoint, lanes=lanes)
            prove(write, measured, blob.where)
            self._media_type(write, measured, blob.where)
            if self._proved is not None:
                self._proved(write.digest, measured)
        except ImgtarError as error:
            if not self._collect or isinstance(error, LocalTrouble):
                raise  # What this machine lacks is no fault of the blob.
            self._fault(write, Finding.of(error))
        except OSError as error:
            if not self._disk or not is_damage(error):
                raise
            message = f"{write.title} cannot be read: {error.strerror}"
            self._fault(write, Finding("E_IO", "error", blob.where, message, 6))
        if write.made_from is None:  # What was made is no part of the archive.
            self._count(write.size)

    def _fault(self, write: Write, finding: Finding) -> None:
        with self._mutex:
            self.findings.append(finding)
            self.bad.add(write.digest)

    def _measured(self, write: Write, blob: Blob, checkpoint: Checkpoint, *, lanes: bool) -> Measure:
        made = write.made_from is not None
        if blob.staged is not None:
            passed = blob.staged.measure
            if made and passed.fault is not None:
                raise passed.fault
            # Nothing was kept to make the layer from, but what it would be has been measured.
            if made and passed.diff_id is not None and passed.plain_size is not None:
                return Measure(passed.diff_id, passed.plain_size, Compression.NONE, passed.diff_id)
            return passed

        def advance(count: int) -> None:
            checkpoint()
            self._report(Event("advance", count=count))

        assert blob.open is not None
        with blob.open() as whole:
            content = plain(whole, where=blob.where, limits=self._limits, budget=blob.budget) if made else whole
            return measure(
                Window(content, write.size + 1),
                where=blob.where,
                algorithm=write.digest.algorithm,
                diff=write.looks_inside,
                limits=self._limits,
                progress=advance,
                lanes=lanes,
                budget=blob.budget,
            )

    def _media_type(self, write: Write, measured: Measure, where: str) -> None:
        """The bytes decide how a layer is read; a media type that says otherwise is worth a warning (H108)."""
        declared = mediatype.layer_compression(write.media_type) if write.kind == "layer" else None
        if declared is not None and declared != str(measured.compression):
            message = f"{write.title}: the media type says {declared}, the bytes are {measured.compression}"
            with self._mutex:
                self.findings.append(Finding("E_TYPE", "warning", where, message))

    def _count(self, size: int) -> None:
        with self._mutex:
            self.blobs_checked += 1
            self.bytes_checked += size

    def commit(self, plan: Plan) -> Receipt:
        """Say what would have been done; nothing is."""
        return Receipt(plan.bytes_to_write, plan.bytes_reused, len(plan.writes), len(plan.reused))
