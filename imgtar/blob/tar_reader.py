"""Walk a tar archive front to back, from a file or a pipe, and never believe it.

The reader copies no data, goes forward only through :class:`TarStream`, and remembers one small record per name. What
makes the archive unreadable or ambiguous is raised; what is merely wrong about one name is handed over in
:attr:`Entry.problem`, so that a caller can first notice "this is a root file system, not an image archive". Sizes and
offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgtar.blob.tar_header import (
    BLOCK,
    KINDS,
    SPECIAL_KINDS,
    UNSUPPORTED_KINDS,
    EntryKind,
    Header,
    PaxFields,
    clean_name,
    has_controls,
    header_fault,
    over_limit,
    padding,
    parse_header,
    parse_long_name,
    parse_pax,
    settled_size,
)
from imgtar.blob.tar_names import Entry, NameTable, entry_fault
from imgtar.blob.tar_stream import TarStream
from imgtar.errors import ImgtarError, Refused
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable, shown

__all__ = ["TarReader"]

_EXTENSIONS = (b"x", b"g", b"L", b"K")
_ZERO_BLOCK = bytes(BLOCK)
_NO_PAX = PaxFields()
_HEADER_COST, _RECORD_COST = 384, 64
_AGAIN = "copy the archive again and compare checksums: it is shorter than its writer meant it to be"

# Looking a member up in its enum class costs more than checking a checksum.
_FILE, _DIRECTORY, _SYMLINK, _HARDLINK = EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK, EntryKind.HARDLINK


class TarReader:
    """Iterate over the entries of ``stream``, reading the current one's data with :meth:`readinto`.

    ``where`` names the archive in errors. Iteration raises ``Refused`` for ``E_HEADER``, ``E_TRUNC``, ``E_TRAILING``,
    ``E_LIMIT`` and ``E_DUP``; once it has raised it raises the same again, it never looks for a next header. It ends
    only after the end-of-archive marker and nothing but zeros were read up to the end of the stream; then ``ended`` is
    true and ``offset`` is the length of the archive.
    """

    def __init__(self, stream: TarStream, *, where: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.ended = False
        self._stream = stream
        self._where = where
        self._limits = limits
        self._block = bytearray(BLOCK)
        self._view = memoryview(self._block)
        self._names = NameTable(limits, where)
        # A name of up to so many bytes cannot be over any limit, not even as "a/a/a/…".
        self._short = min(limits.name, limits.name_component, 2 * limits.name_depth - 1)
        self._entries = 0
        self._extended_cost = 0
        self._current = ""
        self._left = 0
        self._padding = 0
        self._failure: ImgtarError | None = None

    @property
    def offset(self) -> int:
        """Bytes consumed so far."""
        return self._stream.offset

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        if self._failure is not None:
            raise self._failure
        if self.ended:
            raise StopIteration
        try:
            while (entry := self._advance()) is None:
                pass
        except ImgtarError as error:
            self._failure = error
            raise
        return entry

    def readinto(self, buffer: memoryview, /) -> int:
        """Read data of the current entry into ``buffer``; 0 at its end. Raises ``Refused`` ``E_TRUNC``."""
        if self._failure is not None:
            raise self._failure
        if len(buffer) > self._left:
            buffer = buffer[: self._left]
        if not buffer:
            return 0
        try:
            count = self._stream.readinto(buffer)
            if not count:
                raise self._truncated_entry(self._left + self._padding)
        except ImgtarError as error:
            self._failure = error
            raise
        self._left -= count
        return count

    # -- one step ------------------------------------------------------------------------------------------------

    def _advance(self) -> Entry | None:
        """Return the next entry, or ``None`` for one that means nothing. Raises ``StopIteration`` at a clean end."""
        rest = self._left + self._padding
        if rest:
            got = self._stream.skip(rest)
            if got < rest:
                raise self._truncated_entry(rest - got)
            self._left = self._padding = 0
        start = self._stream.offset
        block = self._next_block()
        if block == _ZERO_BLOCK:
            self._finish(start)
            self.ended = True
            raise StopIteration
        header = parse_header(block, start, self._where)
        if header.kind in _EXTENSIONS:
            return self._extended(header, start)
        return self._entry(header, start, _NO_PAX, None, None)

    def _next_block(self) -> bytes:
        start = self._stream.offset
        got = self._fill(self._view)
        if got == BLOCK:
            return bytes(self._block)
        if got:
            raise self._truncated(f"inside the header at byte {start}", BLOCK - got)
        if not start:
            raise Refused("E_TRUNC", "the archive is empty", where=self._where, details={"offset": 0})
        raise self._truncated("without the end-of-archive marker (two zero blocks)", 2 * BLOCK)

    def _fill(self, view: memoryview) -> int:
        got = self._stream.readinto(view)
        while 0 < got < len(view) and (more := self._stream.readinto(view[got:])):
            got += more
        return got

    def _extended(self, header: Header, start: int) -> Entry | None:
        """Collect extension headers up to the entry they belong to."""
        pax: PaxFields | None = None
        name = link = None
        total = count = 0
        at = start
        while header.kind in _EXTENSIONS:
            count += 1
            total += header.size
            if count > self._limits.extended_headers_in_a_row:
                raise self._limit(f"more than {count - 1} extension headers in a row", start)
            if total > self._limits.extended_header:
                raise self._limit(f"{total} bytes of extension headers for one entry", start)
            data = self._extension_data(header.size, at)
            self._charge(data, at)
            if header.kind == b"g":
                if pax is not None or name is not None or link is not None:
                    raise self._fault("a global header stands between an extension header and its entry", at)
                parse_pax(data, at, self._where, everywhere=True)
            elif header.kind == b"x" and pax is None:
                pax = parse_pax(data, at, self._where)
            elif header.kind == b"L" and name is None:
                name = parse_long_name(data, at, self._where)
            elif header.kind == b"K" and link is None:
                link = parse_long_name(data, at, self._where)
            else:
                raise self._fault("two extension headers of one kind for one entry", at)
            at = self._stream.offset
            block = self._next_block()
            if block == _ZERO_BLOCK:
                if pax is None and name is None and link is None:
                    # A global header belongs to no entry: git-archive of an empty tree ends like this.
                    self._finish(at)
                    self.ended = True
                    raise StopIteration
                raise self._fault("the archive ends after an extension header without its entry", at)
            header = parse_header(block, at, self._where)
        pax = pax or _NO_PAX
        if (name and pax.path) or (link and pax.linkpath):
            raise self._fault("a GNU and a pax header both give the name of one entry", at)
        return self._entry(header, at, pax, name, link)

    def _charge(self, data: bytes, at: int) -> None:
        """Count one extension header against what a whole archive may have of them.

        The bytes count twice, for names are kept, and four times more when they are not ASCII and take four bytes each.
        So much is added for the header, and for each record, as goes by in the time that these take.
        """
        kept = len(data) * (2 if data.isascii() else 6)
        self._extended_cost += _HEADER_COST + kept + _RECORD_COST * data.count(b"\n")
        if self._extended_cost > self._limits.extended_headers:
            raise self._limit(
                f"more than {self._limits.extended_headers} bytes of extension headers in the archive", at
            )

    def _extension_data(self, size: int, at: int) -> bytes:
        whole = size + padding(size)
        data = bytearray(whole)  # the caller has held the size against the limit
        got = self._fill(memoryview(data)) if whole else 0
        if got < whole:
            raise self._truncated(f"inside the extension header at byte {at}", whole - got)
        return bytes(data[:size])

    def _entry(
        self, header: Header, start: int, pax: PaxFields, long_name: bytes | None, long_link: bytes | None
    ) -> Entry | None:
        kind_flag, raw, size, raw_link = header
        kind = KINDS.get(kind_flag)
        if kind is None:
            named = UNSUPPORTED_KINDS.get(kind_flag, "unknown")
            raise self._fault(f"type {shown(kind_flag.decode('latin-1'))} ({named}) is not supported", start)
        self._entries += 1
        if self._entries > self._limits.entries:
            raise self._limit(f"more than {self._limits.entries} entries", start)
        longer = long_name or pax.path
        ends_in_slash = raw.endswith(b"/")
        if longer is not None:
            if kind_flag == b"\0" and longer.endswith(b"/") != ends_in_slash:
                # Old headers tell a directory by its slash, and readers differ over which name they look at.
                raise self._fault("the short and the long name disagree over being a directory", start)
            raw, ends_in_slash = longer, longer.endswith(b"/")
        if pax.size is not None:
            try:
                size = settled_size(size, pax.size)
            except ValueError as error:
                raise self._fault(str(error), start) from None
        if ends_in_slash and kind is not _DIRECTORY:
            if kind_flag != b"\0" or size:
                raise self._fault(f"{self._shown(raw)} ends in a slash but is no directory", start)
            kind = _DIRECTORY
        if size and kind is not _FILE and kind_flag != b"7":
            raise self._fault(f"{self._shown(raw)} is a {kind.value} with {size} bytes of data", start)
        is_link = kind is _SYMLINK or kind is _HARDLINK
        if not is_link and (long_link is not None or pax.linkpath is not None):
            raise self._fault(f"{self._shown(raw)} is a {kind.value} with a long link target", start)
        if len(raw) > self._short:
            self._check_length(raw, start)
        problem: Refused | None = None
        link = ""
        try:
            name = clean_name(raw, directory=kind is _DIRECTORY)
            if not name:
                return None  # the root of the archive: an entry with no use
            problem = self._names.enter(name, kind, start)
        except ValueError as error:
            name = printable(raw.decode("utf-8", "backslashreplace"))
            problem = self._problem("E_PATH", f"entry {self._shown(raw)}: the name {error}", name, start)
        if is_link:
            raw_link = long_link or pax.linkpath or raw_link
            self._check_length(raw_link, start)
            try:
                link = raw_link.decode()
                fault = "" if link and not has_controls(link) else "an empty target or one with control characters"
            except UnicodeDecodeError:
                link, fault = raw_link.decode("utf-8", "backslashreplace"), "a target that is not UTF-8"
            if fault and problem is None:
                message = f"{kind.value} {shown(name)} has {fault}: {shown(link)}"
                problem = self._problem("E_LINK", message, name, start)
        elif kind is EntryKind.SPECIAL and problem is None:
            message = f"entry {shown(name)} is {SPECIAL_KINDS[kind_flag]}, which no image archive needs"
            problem = self._problem("E_LINK", message, name, start)
        self._current = name
        self._left = size
        self._padding = -size % BLOCK
        return Entry(name, kind, size, link, start, self._stream.offset, problem)

    # -- names ---------------------------------------------------------------------------------------------------

    def _check_length(self, raw: bytes, start: int) -> None:
        limits = self._limits
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if len(raw) > limits.name:
            raise self._limit(f"a name of {len(raw)} bytes", start)
        if len(parts) > limits.name_depth:
            raise self._limit(f"a name {len(parts)} levels deep", start)
        if max(map(len, parts), default=0) > limits.name_component:
            raise self._limit(f"a name with a part longer than {limits.name_component} bytes", start)

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self, start: int) -> None:
        """Prove everything after the first zero block, which is at ``start``, up to the end of the stream."""
        second = self._stream.offset
        got = self._fill(self._view)
        if self._block[:got].strip(b"\0"):
            raise self._trailing(second, bytes(self._view[:got]), f"after the single zero block at byte {start}")
        if got < BLOCK:
            raise self._truncated("inside the end-of-archive marker (two zero blocks)", BLOCK - got)
        end = self._stream.offset
        scratch = memoryview(bytearray(64 << 10))
        while count := self._stream.readinto(scratch):
            chunk = bytes(scratch[:count])
            if chunk.strip(b"\0"):
                raise self._trailing(
                    self._stream.offset - count, chunk, f"after the end-of-archive marker at byte {start}"
                )
            if self._stream.offset - end > self._limits.trailing_zeros:
                raise Refused(
                    "E_TRAILING",
                    f"more than {self._limits.trailing_zeros} bytes of zeros after the archive's end at byte {end}",
                    where=self._where,
                    details={"offset": end},
                )

    # -- errors --------------------------------------------------------------------------------------------------

    def _shown(self, raw: bytes) -> str:
        return shown(raw.decode("utf-8", "backslashreplace"))

    def _fault(self, reason: str, offset: int) -> Refused:
        return header_fault(reason, offset, self._where)

    def _problem(self, code: str, message: str, name: str, start: int) -> Refused:
        return entry_fault(code, message, name, start, self._where)

    def _limit(self, what: str, offset: int) -> Refused:
        return over_limit(what, offset, self._where)

    def _trailing(self, offset: int, chunk: bytes, after: str) -> Refused:
        offset += len(chunk) - len(chunk.lstrip(b"\0"))
        return Refused(
            "E_TRAILING",
            f"data at byte {offset}, {after}",
            where=self._where,
            hint="nothing may follow the end of an archive: if two archives were joined, take them apart; if not, zeros "
            "stand where entries should be, and the medium or the copy is damaged",
            details={"offset": offset},
        )

    def _truncated(self, place: str, missing: int) -> Refused:
        offset = self._stream.offset
        return Refused(
            "E_TRUNC",
            f"archive ends at byte {offset} {place}",
            where=self._where,
            hint=_AGAIN,
            details={"offset": offset, "missing_bytes": missing},
        )

    def _truncated_entry(self, missing: int) -> Refused:
        offset = self._stream.offset
        return Refused(
            "E_TRUNC",
            f"archive ends at byte {offset}, inside entry {shown(self._current)} ({missing} more bytes expected)",
            where=self._where,
            hint=_AGAIN,
            details={"offset": offset, "entry": printable(self._current), "missing_bytes": missing},
        )
