"""From what the user wrote to a source: a file, a directory, standard input, a folder full of archives."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.files import widen_pipe
from imgtar.errors import NotFound, Refused, local_trouble
from imgtar.model.digest import Digest, Hasher
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import plural, printable, shown
from imgtar.transport.archive import STANDARD_INPUT, DirectorySource, FdReader, StreamSource, TarSource, check_head
from imgtar.transport.detect import HEAD, is_tar_head

__all__ = ["ArchiveSource", "Fingerprint", "close_all", "is_layout", "medium_paths", "open_archive", "passed_over"]

ArchiveSource = TarSource | StreamSource | DirectorySource


class Fingerprint:
    """The size and SHA-256 of an archive file as it is on the medium, once it has passed."""

    def __init__(self) -> None:
        self._hasher: Hasher = Digest("sha256", "").hasher()
        self._reader: FdReader | None = None

    def attach(self, fd: int) -> FdReader:
        """Return a reader whose bytes are counted and hashed."""
        self._reader = FdReader(fd, self._hasher)
        return self._reader

    @property
    def size(self) -> int | None:
        """Bytes that passed; ``None`` when the archive is not read in order."""
        return self._reader.size if self._reader is not None else None

    @property
    def sha256(self) -> str | None:
        """The hash in hex of the bytes that passed."""
        return self._hasher.hexdigest() if self._reader is not None else None


def open_archive(
    path: str,
    *,
    stdin_fd: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    fingerprint: Fingerprint | None = None,
    found: bool = False,
) -> ArchiveSource:
    """Open one archive. ``path`` is a file, a layout directory, or ``-`` for the descriptor ``stdin_fd``.

    ``found``: nobody named it, it is of a folder that was listed, and was no fifo then. Nobody waits for one.
    Raises :class:`NotFound`, :class:`LocalTrouble`, or :class:`Refused` for what is plainly something else.
    """
    label = STANDARD_INPUT if path == "-" else printable(path, limit=None)
    try:
        waits = path != "-" and not found and _is_fifo(path)
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if waits else os.O_NONBLOCK)
        fd = os.dup(stdin_fd) if path == "-" else os.open(path, flags)
    except FileNotFoundError:
        raise NotFound(
            f"no such file or directory: {shown(path)}", hint="check the path and that the medium is mounted"
        ) from None
    except NotADirectoryError:
        raise NotFound(f"no such file: {shown(path)}") from None
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Refused("E_TYPE", "is a socket, not an image archive", where=label) from None
        raise local_trouble(error, f"opening {label}") from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return DirectorySource(label, fd, limits)
        if stat.S_ISFIFO(status.st_mode) and not waits and path != "-":
            os.close(fd)
            raise Refused("E_LINK", "changed meanwhile: it was a file, and is a fifo", where=label, hint=_AGAIN)
        return _open_file(label, fd, status, limits, fingerprint)
    except OSError as error:
        raise local_trouble(error, f"reading {label}") from None


def _is_fifo(path: str) -> bool:
    """Whether it is one now, so that who names one waits for whoever writes to it, and nobody else waits for anything."""
    return stat.S_ISFIFO(os.stat(path).st_mode)


def _open_file(
    label: str, fd: int, status: os.stat_result, limits: Limits, fingerprint: Fingerprint | None
) -> ArchiveSource:
    try:
        if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode):
            size = os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(status.st_mode) else status.st_size
            position = os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(status.st_mode) else 0
            head = os.pread(fd, HEAD, 0)
            if sniff(head) is Compression.NONE and position == 0:
                check_head(head, label, decompressed=False)
                return TarSource(label, fd, size, limits)
        widen_pipe(fd)
        reader = fingerprint.attach(fd) if fingerprint is not None else FdReader(fd)
        compression = sniff(reader.peek(SNIFF_BYTES))
        return StreamSource(label, reader, compression, lambda: _close(fd), limits)
    except BaseException:
        _close(fd)
        raise


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        if error.errno != errno.EBADF:  # Closing twice is fine, anything else is not.
            raise


_AGAIN = "run it again when nobody writes there any more"


def medium_paths(path: str) -> tuple[list[str], list[str]]:
    """Return the archives that ``path`` means, and the names of files passed over.

    A folder that is no image layout is a medium: all archives and layout directories in it, by name. Raises
    :class:`NotFound` when there is none.
    """
    if path == "-" or not os.path.isdir(path) or is_layout(path):
        return [path], []
    found: list[str] = []
    skipped: list[str] = []
    for name in sorted(os.listdir(path)):
        inner = os.path.join(path, name)
        if name.startswith("."):
            skipped.append(name)  # macOS leaves ._NAME beside every NAME on such media.
            continue
        if os.path.isdir(inner):
            # A folder with blobs is a layout, even if its index was lost: that must be said, not passed over.
            wanted = is_layout(inner) or os.path.isdir(os.path.join(inner, "blobs"))
        else:
            wanted = _may_be_archive(inner)
        (found if wanted else skipped).append(inner if wanted else name)
    if not found:
        raise NotFound(
            f"no image archive in {shown(path)}", hint="it is neither an OCI layout nor a folder with archives in it"
        )
    return found, skipped


def passed_over(path: str, names: Sequence[str]) -> str:
    """A sentence about the files of a medium that are no archives."""
    listing = ", ".join(printable(name) for name in names[:5]) + (" …" if len(names) > 5 else "")
    verb = "is no image archive" if len(names) == 1 else "are no image archives"
    return f"{plural(len(names), 'entry', 'entries')} in {printable(path)} {verb}: {listing}"


def is_layout(path: str) -> bool:
    """Whether a folder is one image layout, and not a medium with several archives."""
    return any(os.path.lexists(os.path.join(path, name)) for name in ("index.json", "oci-layout", "manifest.json"))


_ARCHIVE_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".gz", ".zst", ".xz", ".bz2")


def _may_be_archive(path: str) -> bool:
    """Whether a file of a medium is an archive, or ought to be one: what is damaged must be reported, not passed over."""
    from imgtar.transport.inventory_file import is_inventory

    if not os.path.isfile(path):
        return False
    try:
        # O_NONBLOCK: what was a file just now may be a fifo.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            head = file.read(HEAD) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO):
            raise
        return False  # Gone, or a socket by now.
    if is_inventory(path):
        return False
    damaged = not any(head) or head[257:262] == b"ustar" or path.endswith(_ARCHIVE_ENDINGS)
    return damaged or is_tar_head(head) or sniff(head) is not Compression.NONE


def close_all(sources: Sequence[ArchiveSource]) -> None:
    """Close every source."""
    for source in sources:
        source.close()
