"""What can go wrong, as a tree that says what the caller can do about it.

::

    ImgtarError                 exit  codes
    ├── UsageError                 2  E_USAGE
    ├── NotFound                   3  E_NOT_FOUND
    ├── DependencyMissing          4  E_MISSING
    ├── Refused                    5  E_PATH E_LINK E_DUP E_HEADER E_TRUNC E_TRAILING E_LIMIT E_COMPRESS
    │                                 E_JSON E_DIGEST E_SIZE E_DIFFID E_TYPE E_GRAPH E_NAME
    ├── LocalTrouble               6  E_IO E_SPACE E_PERMISSION
    ├── StoreTrouble               7  E_STORE E_LOCKED E_VERSION
    ├── RemoteTrouble              8  E_REMOTE
    ├── Conflict                   9  E_CONFLICT
    └── TrustFailure              10  E_SIG

Every error carries values, not only words: a stable ``code``, where it happened, a next step (``hint``) and
``details`` for scripts. Codes and exit statuses are part of the contract with users (docs/errors.md).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

__all__ = [
    "Conflict",
    "DependencyMissing",
    "ImgtarError",
    "LocalTrouble",
    "NotFound",
    "Refused",
    "RemoteTrouble",
    "StoreTrouble",
    "TrustFailure",
    "UsageError",
    "local_trouble",
]

Details = Mapping[str, object]


class ImgtarError(Exception):
    """The root of everything imgtar raises on purpose.

    ``message`` says what is wrong; ``where`` names the archive, entry, byte offset, digest or image; ``hint`` is the
    next step; ``details`` holds plain JSON values. Text from strangers must have gone through ``text.shown``.
    """

    code = "E_UNFORESEEN"
    exit_code = 1

    def __init__(
        self, message: str, *, code: str = "", where: str = "", hint: str = "", details: Details | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.where = where
        self.hint = hint
        self.details: dict[str, object] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def within(self, where: str) -> ImgtarError:
        """Put ``where`` in front of what is already known about the place, and return the error itself."""
        if where and not self.where.startswith(where):
            self.where = f"{where}: {self.where}" if self.where else where
        return self


class UsageError(ImgtarError):
    """The request itself is wrong: options, a reference, a platform."""

    code = "E_USAGE"
    exit_code = 2


class NotFound(ImgtarError):
    """A file, image, tag or platform that was asked for is not there."""

    code = "E_NOT_FOUND"
    exit_code = 3


class DependencyMissing(ImgtarError):
    """A layer, config, child manifest or parent image is nowhere to be had. ``details["missing"]`` lists every gap."""

    code = "E_MISSING"
    exit_code = 4


class Refused(ImgtarError):
    """The archive is not one we know, unsafe, over a limit, truncated or damaged. ``code`` says which."""

    code = "E_TYPE"
    exit_code = 5

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "", details: Details | None = None):
        super().__init__(message, code=code, where=where, hint=hint, details=details)


class LocalTrouble(ImgtarError):
    """This machine got in the way: no space, no permission, an I/O error."""

    code = "E_IO"
    exit_code = 6


class StoreTrouble(ImgtarError):
    """The store is damaged, locked for too long, or made by a newer imgtar."""

    code = "E_STORE"
    exit_code = 7


class RemoteTrouble(ImgtarError):
    """An engine or a registry failed or refused."""

    code = "E_REMOTE"
    exit_code = 8


class Conflict(ImgtarError):
    """A tag would be moved although that was forbidden, or it moved meanwhile."""

    code = "E_CONFLICT"
    exit_code = 9


class TrustFailure(ImgtarError):
    """A signature is missing, wrong, or by a key that is not trusted."""

    code = "E_SIG"
    exit_code = 10


def local_trouble(error: OSError, doing: str) -> LocalTrouble:
    """Return ``error`` as a :class:`LocalTrouble` whose message says what was being done (``doing``)."""
    reason = error.strerror or str(error)
    path = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LocalTrouble(
            f"no space left while {doing}{path}", code="E_SPACE", hint="free some space there, or choose another place"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LocalTrouble(
            f"not allowed while {doing}{path}: {reason}",
            code="E_PERMISSION",
            hint="check owner and mode of that path, and whether the file system is read-only",
        )
    hint = _HINTS.get(error.errno or 0, "check the medium and the system log (dmesg)")
    return LocalTrouble(f"{reason} while {doing}{path}", hint=hint)


_HINTS = {
    errno.EMFILE: "allow more open files (ulimit -n), or give fewer --jobs",
    errno.ENFILE: "the whole system has too many files open: stop other programs",
    errno.EFBIG: "no larger file is allowed there: FAT holds 4 GiB in one, or see ulimit -f",
    errno.ENAMETOOLONG: "choose a shorter name or path",
    errno.EXDEV: "files are moved into place, so both ends must lie in one file system: is a folder of it a mount?",
}
