"""Content digests: the only names of content imgtar believes, and only after it has computed them itself."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.text import shown

__all__ = ["EMPTY_JSON", "Digest", "Hasher"]

# The grammar of OCI image-spec descriptor.md. Only for fullmatch: a "$" would let a final line break through, and \d
# or \w would let digits and letters of other scripts through.
_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([A-Za-z0-9=_-]+)")

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_HEX = {name: re.compile(f"[0-9a-f]{{{count}}}") for name, count in _HEX_DIGITS.items()}


class Hasher(Protocol):
    """What is used of a hashlib object."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in the next bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far in lowercase hex."""
        ...


@frozen
class Digest:
    """A digest as it stands in descriptors: ``algorithm:encoded`` (OCI image-spec, descriptor.md).

    The constructor trusts its arguments; text from strangers goes through :meth:`parse`.
    """

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest written in ``text``.

        Algorithms other than sha256 and sha512 are accepted when well formed, as descriptor.md asks, but are not
        :attr:`supported`. Raises :class:`Refused` (``E_DIGEST``).
        """
        algorithm, _, encoded = text.partition(":")
        hexadecimal = _HEX.get(algorithm)
        if hexadecimal is not None and hexadecimal.fullmatch(encoded) is not None:
            return cls(algorithm, encoded)
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise Refused(
                "E_DIGEST", f"{shown(text)} is not a digest", hint="a digest looks like sha256:<64 hex digits>"
            )
        if hexadecimal is not None:
            raise Refused(
                "E_DIGEST",
                f"{shown(text)} is not a digest: {algorithm} takes {_HEX_DIGITS[algorithm]} lowercase hex digits",
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of ``data``. Raises :class:`Refused` (``E_DIGEST``) for an algorithm not supported."""
        hasher = _new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    @classmethod
    def from_hex(cls, encoded: str, algorithm: str = "sha256") -> Digest:
        """Return the digest for the result of ``hexdigest()``, which is trusted."""
        return cls(algorithm, encoded)

    @property
    def supported(self) -> bool:
        """Whether content can be checked against this digest."""
        return self.algorithm in _HEX

    @property
    def short(self) -> str:
        """The first 12 characters after the colon, as ``docker images`` shows them."""
        return self.encoded[:12]

    @property
    def path(self) -> str:
        """The place below ``blobs/`` (OCI image-layout.md): ``sha256/<hex>``.

        Raises :class:`Refused` (``E_DIGEST``) for every other algorithm than sha256 and sha512.
        """
        hexadecimal = _HEX.get(self.algorithm)
        # Looked at again although parse has done so: this is where a digest becomes a path, and digests that became
        # paths unseen were CVE-2024-3727 and CVE-2014-9358.
        if hexadecimal is None:
            raise _not_supported(str(self))
        if hexadecimal.fullmatch(self.encoded) is None:
            raise Refused("E_DIGEST", f"{shown(str(self))} is not a digest")
        return f"{self.algorithm}/{self.encoded}"

    def hasher(self) -> Hasher:
        """Return a new hash object. Raises :class:`Refused` (``E_DIGEST``) when the algorithm is not supported."""
        return _new_hasher(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Digest):
            return NotImplemented
        return (self.algorithm, self.encoded) < (other.algorithm, other.encoded)


def _new_hasher(algorithm: str) -> Hasher:
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm == "sha512":
        return hashlib.sha512()
    raise _not_supported(algorithm)


def _not_supported(what: str) -> Refused:
    return Refused("E_DIGEST", f"{shown(what)}: digest algorithm not supported", hint="imgtar checks sha256 and sha512")


EMPTY_JSON = Digest("sha256", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
"""The digest of ``{}``, the empty descriptor's content (OCI image-spec, manifest.md)."""
