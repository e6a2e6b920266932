"""Image references: ``[domain/]path[:tag][@digest]``, read as Docker reads them.

Source: distribution/reference (reference.go, regexp.go, normalize.go). Every spelling of a name becomes the same
:class:`Reference`, so that two spellings of one name cannot pass as two names.
"""

from __future__ import annotations

import re
from typing import NoReturn

from imgtar.errors import Refused, UsageError
from imgtar.frozen import frozen, replace
from imgtar.model.digest import Digest
from imgtar.text import shown

__all__ = ["Reference", "parse_user_reference"]

_DEFAULT_DOMAIN = "docker.io"
_OLD_DEFAULT_DOMAIN = "index.docker.io"
_LIBRARY = "library/"
_LONGEST_PATH = 255
_LONGEST_TAG = 128

# Only for fullmatch. No part can be matched in two ways, so the time is linear in the length of a stranger's text.
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@frozen
class Reference:
    """A normalised image reference: ``domain`` and ``path`` are always there, ``docker.io`` and ``library/`` included.

    The constructor trusts its arguments; text goes through :meth:`parse`.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that ``text`` spells. Nothing is added for a missing tag, see :meth:`tagged`.

        Raises :class:`Refused` (``E_NAME``), also for names that could be taken for an image ID or a digest.
        """
        name, at, digest_text = text.partition("@")
        domain, rest = _split_domain(name)
        path, colon, tag = rest.partition(":")
        _check_domain(text, domain)
        if domain == _OLD_DEFAULT_DOMAIN:
            domain = _DEFAULT_DOMAIN
        _check_path(text, path)
        if domain == _DEFAULT_DOMAIN and "/" not in path:
            path = _LIBRARY + path
        if len(path) > _LONGEST_PATH:
            _refuse(text, f"the repository name has {len(path)} characters, more than {_LONGEST_PATH}")
        if colon:
            _check_tag(text, tag)
        digest = _parse_digest(text, digest_text) if at else None
        reference = cls(domain, path, tag if colon else None, digest)
        _check_not_ambiguous(text, reference)
        return reference

    def tagged(self) -> Reference:
        """Return the reference with the tag ``latest`` if it has neither tag nor digest, else itself."""
        return replace(self, tag="latest") if self.tag is None and self.digest is None else self

    @property
    def repository(self) -> str:
        """The full name without tag and digest: ``docker.io/library/app``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The short name without tag and digest, as Docker shows it: ``app``.

        The domain stays where a reader would take the rest for another one: ``docker.io/localhost/app``.
        """
        if self.domain != _DEFAULT_DOMAIN:
            return self.repository
        first, slash, rest = self.path.partition("/")
        if not slash:
            return self.path
        if f"{first}/" == _LIBRARY and "/" not in rest:
            return rest
        return self.repository if _looks_like_domain(first) else self.path

    @property
    def full(self) -> str:
        """The reference with nothing left out: ``docker.io/library/app:1``."""
        return self.repository + self._suffix()

    @property
    def familiar(self) -> str:
        """The reference as Docker shows it: ``app:1``. Parses to the same reference again."""
        return self.familiar_repository + self._suffix()

    def _suffix(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return tag if self.digest is None else f"{tag}@{self.digest}"

    def __str__(self) -> str:
        return self.familiar


def parse_user_reference(text: str) -> Reference:
    """Return the reference that a user typed. Raises :class:`UsageError`: here the request is wrong, not an archive."""
    try:
        return Reference.parse(text)
    except Refused as refused:
        raise UsageError(refused.message, hint=refused.hint, details=refused.details) from refused


def _refuse(text: str, reason: str, *, hint: str = "") -> NoReturn:
    raise Refused("E_NAME", f"{shown(text)} is not an image name: {reason}", hint=hint)


def _looks_like_domain(first: str) -> bool:
    """Whether the part before the first ``/`` names a registry (normalize.go, splitDockerDomain)."""
    return first == "localhost" or "." in first or ":" in first or first != first.lower()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    return (first, rest) if slash and _looks_like_domain(first) else (_DEFAULT_DOMAIN, name)


def _check_domain(text: str, domain: str) -> None:
    if not _DOMAIN.fullmatch(domain):
        _refuse(text, f"{shown(domain)} is not a registry host")


def _check_path(text: str, path: str) -> None:
    if not path:
        _refuse(text, "there is no repository name")
    for component in path.split("/"):
        if _COMPONENT.fullmatch(component):
            continue
        if not component:
            _refuse(text, "a part of the repository name is empty")
        if _COMPONENT.fullmatch(component.lower()):
            _refuse(text, "the repository name must be lowercase")
        _refuse(
            text,
            f"{shown(component)} is not allowed in a repository name",
            hint="letters a-z and digits, joined by one of . _ __ or by dashes",
        )


def _check_tag(text: str, tag: str) -> None:
    if not tag:
        _refuse(text, "the tag is empty")
    if len(tag) > _LONGEST_TAG:
        _refuse(text, f"the tag has {len(tag)} characters, more than {_LONGEST_TAG}")
    if not _TAG.fullmatch(tag):
        _refuse(
            text, f"{shown(tag)} is not a tag", hint="letters, digits, _ . and -, not beginning with a dot or a dash"
        )


def _parse_digest(text: str, digest_text: str) -> Digest:
    try:
        digest = Digest.parse(digest_text)
    except Refused as refused:
        _refuse(text, refused.message, hint=refused.hint)
    # Narrower than a descriptor's digest: distribution/reference allows hex only.
    if not _DIGEST.fullmatch(digest_text):
        _refuse(text, f"{shown(digest_text)} is not a digest that a name can carry")
    return digest


def _check_not_ambiguous(text: str, reference: Reference) -> None:
    """Refuse names that a reader takes for content: CVE-2014-5278; dockerd refuses ``sha256`` as well."""
    name = reference.familiar_repository
    if _IMAGE_ID.fullmatch(name):
        _refuse(text, "64 hex digits are an image ID, they cannot be a name")
    if name == "sha256" or (name == "sha512" and reference.tag and _is_digest(f"{name}:{reference.tag}")):
        _refuse(text, f"{name} is a digest algorithm, so it would be taken for a digest")


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except Refused:
        return False
    return True
