"""What the names of one archive mean together: none is there twice, no file is a directory too, links lead to files.

All of it goes by name alone. The table remembers one number per name, and names of any length in little memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from imgtar.blob.tar_header import EntryKind, over_limit
from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.model.limits import Limits
from imgtar.text import printable, shown

__all__ = ["Entry", "NameTable", "entry_fault", "resolve_links"]


@frozen
class Entry:
    """One entry. ``name`` is clean, or only printable when ``problem`` is about it; ``link`` is the raw target text."""

    name: str
    kind: EntryKind
    size: int
    link: str
    header_offset: int
    data_offset: int
    problem: Refused | None


def entry_fault(code: str, message: str, name: str, offset: int, where: str = "") -> Refused:
    """Return what is wrong about the entry ``name`` with its header at byte ``offset``."""
    return Refused(code, message, where=where, details={"entry": printable(name), "offset": offset})


# Looking a member up in its enum class costs more than checking a checksum.
_DIRECTORY, _SYMLINK, _HARDLINK = EntryKind.DIRECTORY, EntryKind.SYMLINK, EntryKind.HARDLINK

# States of a name in the name table, kept in the low bits beside the header offset.
_AS_FILE, _AS_SYMLINK, _AS_DIRECTORY, _AS_IMPLIED, _UNDER_FILE, _UNDER_SYMLINK = range(6)
_STATES = 6


def _key(name: str) -> str | bytes:
    # Long names are remembered by a hash, so that 100,000 names of 4 KiB cannot take 400 MB.
    return name if len(name) <= 120 else blake2b(name.encode(), digest_size=16).digest()


class NameTable:
    """Every name of an archive so far, and the directories that names imply; at most ``limits.entries`` of those."""

    def __init__(self, limits: Limits, where: str = "") -> None:
        self._names: dict[str | bytes, int] = {}
        self._implied = 0
        self._most = limits.entries
        self._where = where

    def enter(self, name: str, kind: EntryKind, start: int) -> Refused | None:
        """Remember ``name`` and its parents. Raises ``E_DUP``; returns a problem if files and directories clash."""
        names = self._names
        key = _key(name)
        state = _AS_DIRECTORY if kind is _DIRECTORY else _AS_SYMLINK if kind is _SYMLINK else _AS_FILE
        problem: Refused | None = None
        seen = names.get(key)
        if seen is not None:
            before, earlier = divmod(seen, _STATES)
            if earlier <= _AS_SYMLINK or (earlier == _AS_DIRECTORY and state != _AS_DIRECTORY):
                raise Refused(
                    "E_DUP",
                    f"{shown(name)} is there twice: headers at byte {before} and byte {start}",
                    where=self._where,
                    hint="readers differ over which of the two counts; have the archive written again",
                    details={"entry": name, "offsets": [before, start]},
                )
            if state != _AS_DIRECTORY:
                problem = self._clash(name, name, before, start, through_link=state == _AS_SYMLINK)
            elif earlier >= _UNDER_FILE:
                return self._clash(name, name, before, start, through_link=earlier == _UNDER_SYMLINK)
        names[key] = start * _STATES + state
        parent = name.rpartition("/")[0]
        if parent and names.get(_key(parent), -1) % _STATES not in (_AS_DIRECTORY, _AS_IMPLIED):
            return self._enter_parents(name, parent, start) or problem
        return problem

    def _enter_parents(self, name: str, parent: str, start: int) -> Refused | None:
        names = self._names
        fresh: list[str | bytes] = []
        state = start * _STATES + _AS_IMPLIED
        problem: Refused | None = None
        while parent:
            key = _key(parent)
            seen = names.get(key)
            if seen is not None:
                before, earlier = divmod(seen, _STATES)
                if earlier not in (_AS_DIRECTORY, _AS_IMPLIED):
                    through_link = earlier in (_AS_SYMLINK, _UNDER_SYMLINK)
                    problem = self._clash(name, parent, before, start, through_link=through_link)
                    # Marked, so that each later name below it stops here and the walk stays linear.
                    state = before * _STATES + (_UNDER_SYMLINK if through_link else _UNDER_FILE)
                break
            fresh.append(key)
            parent = parent.rpartition("/")[0]
        # Directories nobody wrote down take memory too.
        self._implied += len(fresh)
        if self._implied > self._most:
            raise over_limit(f"more than {self._most} directories", start, self._where)
        names.update(dict.fromkeys(fresh, state))
        return problem

    def _clash(self, name: str, directory: str, before: int, start: int, *, through_link: bool) -> Refused:
        what = "a symbolic link" if through_link else "a file"
        return entry_fault(
            "E_LINK" if through_link else "E_PATH",
            f"{shown(directory)} is {what} and a directory: headers at byte {before} and byte {start}",
            name,
            start,
            self._where,
        )


def resolve_links(links: Iterable[Entry], files: Mapping[str, int], *, where: str = "") -> dict[str, str]:
    """Return the file each of ``links`` stands for, by name alone; ``files`` maps file names to header offsets.

    Symbolic links count from their own directory and may come before their target; hard links count from the root of
    the archive and may not. Exactly one hop onto a regular file is allowed. Raises ``Refused`` ``E_LINK`` naming both
    ends.
    """
    table = {link.name: link for link in links}
    found: dict[str, str] = {}
    for name, link in table.items():
        hard = link.kind is _HARDLINK
        try:
            target = _target(link, table)
            if target in table:
                raise ValueError("the target is itself a link")
            if target not in files:
                raise ValueError("there is no such file in the archive")
            if hard and files[target] > link.header_offset:
                raise ValueError("the target of a hard link must come first")
        except ValueError as error:
            raise Refused(
                "E_LINK",
                f"{link.kind.value} {shown(name)} to {shown(link.link)}: {error}",
                where=where,
                details={"entry": printable(name), "target": printable(link.link), "offset": link.header_offset},
            ) from None
        found[name] = target
    return found


def _target(link: Entry, table: Mapping[str, Entry]) -> str:
    text = link.link
    if text.startswith("/"):
        raise ValueError("the target is absolute")
    if text.endswith("/"):
        raise ValueError("the target is a directory")
    hard = link.kind is _HARDLINK
    parts = [] if hard else link.name.split("/")[:-1]
    for part in text.split("/"):
        if part in ("", "."):
            continue
        # Stepping through a link means another place on a file system than in a table of names.
        if "/".join(parts) in table:
            raise ValueError("the way to the target leads through a link")
        if part != "..":
            parts.append(part)
        elif hard or not parts:
            raise ValueError("the target is outside the archive")
        else:
            parts.pop()
    return "/".join(parts)
