"""Where zstd frames begin and end, read from the compressed bytes alone (RFC 8878, section 3.1).

libzstd's streaming interface, as Python reaches it, says nothing when its input stops in the middle of a frame: the
output is merely short. So the same bytes also go through this walker, which unpacks nothing, remembers a dozen
numbers, and knows at every moment whether the stream may end here.
"""

from __future__ import annotations

import re

from ..errors import Refused
from ..text import human_size

__all__ = ["FRAME_MAGIC", "FrameWalker", "is_frame_start"]

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_TAIL = b"\x2a\x4d\x18"  # after one byte 0x50 ... 0x5f
_BLOCK_MAXIMUM = 1 << 17
_RLE, _RESERVED = 1, 3

# An empty raw block that is not the last one is three zero bytes. A stream may hold any number of them; stepping over
# a whole run at once keeps the cost of that game near that of copying the bytes.
_EMPTY_BLOCKS = re.compile(rb"(?:\0\0\0)+")

# What the next bytes are, once ``_skip`` bytes of content are passed over.
_MAGIC, _SKIPPABLE_SIZE, _FRAME_HEADER, _BLOCK_HEADER, _PADDING = range(5)


def is_frame_start(head: bytes) -> bool:
    """Tell whether ``head`` begins with the magic number of a zstd frame or of a skippable frame."""
    return head[:4] == FRAME_MAGIC or (head[1:4] == _SKIPPABLE_TAIL and 0x50 <= head[0] <= 0x5F)


class FrameWalker:
    """Follow a sequence of zstd frames, fed in pieces of any size.

    Refuses (``E_COMPRESS``) what must never reach the decoder: windows over ``max_window``, dictionaries, reserved bits
    and block types, oversized blocks, and anything but NUL bytes after a frame (more than ``max_padding`` of those are
    ``E_LIMIT``). Damage inside of compressed blocks is the decoder's to find.
    """

    def __init__(self, *, max_window: int, max_padding: int, where: str = "") -> None:
        self.frames = 0
        self.position = 0
        self._max_window = max_window
        self._max_padding = max_padding
        self._where = where
        self._state = _MAGIC
        self._held = b""  # the first bytes of a header that is cut by the end of a piece
        self._skip = 0
        self._checksum = 0
        self._padding = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here: after at least one whole frame, outside of any other."""
        return self.frames > 0 and not self._skip and not self._held and self._state in (_MAGIC, _PADDING)

    def feed(self, data: bytes) -> int:
        """Walk over ``data``; return how many of its first bytes belong to frames (the rest is trailing padding)."""
        if self._state == _PADDING:
            self._pad(data)
            self.position += len(data)
            return 0
        held = len(self._held)
        if held:
            data = self._held + data
            self._held = b""
            self.position -= held
        used = self._walk(data)
        self.position += len(data)
        return used - held

    def finish(self) -> None:
        """Refuse, unless the stream may end here."""
        if self.at_boundary:
            return
        if not self.position:
            raise self._refused("zstd stream ends early: it is empty")
        if self._state == _MAGIC and self._held and self.frames:
            raise self._refused("bytes that are no zstd frame follow the zstd stream")
        raise self._refused(f"zstd stream ends early, inside of a frame, after {self.position} bytes")

    def _walk(self, data: bytes) -> int:
        pos, end = 0, len(data)
        while True:
            if self._skip:
                step = min(self._skip, end - pos)
                self._skip -= step
                pos += step
            if pos >= end:
                return end
            if self._state == _BLOCK_HEADER:
                pos, hungry = self._blocks(data, pos)
                if hungry:
                    break
            elif self._state == _MAGIC:
                if data[pos] == 0 and self.frames:
                    self._state = _PADDING
                    self._pad(data[pos:])
                    return pos
                self._magic(data[pos : pos + 4], pos)
                if end - pos < 4:
                    break
                pos += 4
            elif self._state == _SKIPPABLE_SIZE:
                if end - pos < 4:
                    break
                self._skip = int.from_bytes(data[pos : pos + 4], "little")
                self._state = _MAGIC
                self.frames += 1
                pos += 4
            else:
                size = _frame_header_size(data[pos])
                if end - pos < size:
                    break
                self._frame_header(data[pos : pos + size], pos)
                pos += size
        self._held = data[pos:]
        return end

    def _blocks(self, data: bytes, pos: int) -> tuple[int, bool]:
        """Pass over the blocks that begin in ``data``; return the new position and whether a header is cut off."""
        end = len(data)
        while end - pos >= 3:
            header = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            if not header:
                run = _EMPTY_BLOCKS.match(data, pos)
                pos = run.end() if run else pos + 3
                continue
            kind, size = header >> 1 & 3, header >> 3
            if kind == _RESERVED:
                raise self._refused("zstd stream is damaged: a block of reserved type", pos)
            if size > _BLOCK_MAXIMUM:
                raise self._refused(f"zstd stream is damaged: a block of {size} bytes", pos)
            pos += 3 + (1 if kind == _RLE else size)
            if header & 1:
                self._state = _MAGIC
                self.frames += 1
                pos += self._checksum
                break
            if pos > end:
                break
        else:
            return pos, pos < end
        if pos > end:
            self._skip = pos - end
            pos = end
        return pos, False

    def _magic(self, magic: bytes, pos: int) -> None:
        if len(magic) < 4:  # cut off: refuse what cannot become one, before the decoder sees it
            known = FRAME_MAGIC.startswith(magic) or (
                0x50 <= magic[0] <= 0x5F and _SKIPPABLE_TAIL.startswith(magic[1:])
            )
        else:
            known = is_frame_start(magic)
            self._state = _FRAME_HEADER if magic == FRAME_MAGIC else _SKIPPABLE_SIZE
        if known:
            return
        if self.frames:
            raise self._refused("bytes that are no zstd frame follow the zstd stream", pos)
        raise self._refused("not a zstd stream", pos)

    def _frame_header(self, header: bytes, pos: int) -> None:
        descriptor = header[0]
        single_segment = descriptor >> 5 & 1
        if descriptor & 0x08:
            raise self._refused("zstd stream is damaged: a reserved bit is set in a frame header", pos)
        dictionary_at = 1 if single_segment else 2
        content_at = dictionary_at + _DICTIONARY_ID_SIZES[descriptor & 3]
        dictionary = int.from_bytes(header[dictionary_at:content_at], "little")
        if dictionary:
            raise self._refused(f"zstd stream needs dictionary {dictionary}, which images do not carry", pos)
        if single_segment:
            # No window is given: the whole content is the window.
            window = int.from_bytes(header[content_at:], "little") + (256 if descriptor >> 6 == 1 else 0)
        else:
            base = 1 << (10 + (header[1] >> 3))
            window = base + base // 8 * (header[1] & 7)
        if window > self._max_window:
            raise Refused(
                "E_COMPRESS",
                f"zstd stream wants a window of {human_size(window)}, more than {human_size(self._max_window)}",
                where=self._where,
                hint="compress it again with a window of 8 MiB or less (zstd without --long and --ultra)",
                details={"limit": "zstd_window", "value": self._max_window, "found": window},
            )
        self._checksum = 4 if descriptor & 0x04 else 0
        self._state = _BLOCK_HEADER

    def _pad(self, data: bytes) -> None:
        if data.count(0) != len(data):
            raise self._refused("bytes that are no zstd frame follow the zstd stream")
        self._padding += len(data)
        if self._padding > self._max_padding:
            raise Refused(
                "E_LIMIT",
                f"more than {self._max_padding} NUL bytes follow the zstd stream",
                where=self._where,
                details={"limit": "trailing_zeros", "value": self._max_padding},
            )

    def _refused(self, message: str, pos: int | None = None) -> Refused:
        if pos is not None:
            message = f"{message} (at byte {self.position + pos})"
        return Refused("E_COMPRESS", message, where=self._where)


_DICTIONARY_ID_SIZES = (0, 1, 2, 4)


def _frame_header_size(descriptor: int) -> int:
    """Return the size of a frame header, without the magic number, from its first byte."""
    single_segment = descriptor >> 5 & 1
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    return 2 - single_segment + _DICTIONARY_ID_SIZES[descriptor & 3] + content_size
