"""Platforms: what an image runs on, and whether that is the one asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from imgtar.errors import UsageError
from imgtar.frozen import frozen, replace
from imgtar.text import shown

__all__ = ["Platform", "parse_platforms"]

# containerd platforms, specifierRe: what may stand between the slashes.
_PART = re.compile(r"[A-Za-z0-9_.-]+")

_OS = {"macos": "darwin", "": "linux"}
_ARCHITECTURE = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "armhf": "arm",
    "armel": "arm",
}
# Old names that say the variant themselves, whatever stands beside them.
_VARIANT_BY_OLD_NAME = {"i386": "", "armhf": "v7", "armel": "v6"}
_VARIANT = {
    "amd64": {"v1": ""},
    "arm64": {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"},
    "arm": {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"},
}


@frozen
class Platform:
    """A platform as written in an index or config (OCI image-spec, image-index.md), or by a user.

    The constructor trusts its arguments: what comes from an archive must be made printable before a person sees it.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that a user wrote as ``os/arch[/variant]``. Raises :class:`UsageError`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise UsageError(
                f"{shown(text)} is not a platform", hint="write os/architecture[/variant], for example linux/arm64"
            )
        return cls(parts[0], parts[1], parts[2] if len(parts) == 3 else "")

    @property
    def is_unknown(self) -> bool:
        """Whether it is ``unknown/unknown``, which marks BuildKit attestations in an index."""
        return self.os.lower() == self.architecture.lower() == "unknown"

    def normalized(self) -> Platform:
        """Return the platform in the one spelling that containerd compares (platforms, database.go).

        containerd puts its host in place of an empty ``os``; that is always Linux here, where imgtar runs. Version and
        features of the operating system stay as they are.
        """
        os, written, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        architecture = _ARCHITECTURE.get(written, written)
        if written in _VARIANT_BY_OLD_NAME:
            variant = _VARIANT_BY_OLD_NAME[written]
        else:
            variant = _VARIANT.get(architecture, {}).get(variant, variant)
        return replace(self, os=_OS.get(os, os), architecture=architecture, variant=variant)

    @property
    def machine(self) -> tuple[str, str, str, str, tuple[str, ...]]:
        """What tells this platform from others for an engine that looks for its own: two spellings of one are equal.

        Only Windows images are chosen by version and features of the operating system too (containerd platforms,
        compare.go).
        """
        one = self.normalized()
        if one.os != "windows":
            return one.os, one.architecture, one.variant, "", ()
        return one.os, one.architecture, one.variant, one.os_version, tuple(sorted(one.os_features))

    def matches(self, wanted: Platform) -> bool:
        """Whether this platform is the ``wanted`` one: same os, architecture and variant once both are normalised.

        As strict as ``docker save --platform`` (containerd "OnlyStrict"): ``linux/arm64`` is ``linux/arm64/v8`` and
        ``linux/arm`` is ``linux/arm/v7``, but nothing older is taken instead.
        """
        mine, other = self.normalized(), wanted.normalized()
        return (mine.os, mine.architecture, mine.variant) == (other.os, other.architecture, other.variant)

    def __str__(self) -> str:
        written = f"{self.os}/{self.architecture}"
        return f"{written}/{self.variant}" if self.variant else written


def parse_platforms(values: Iterable[str]) -> tuple[Platform, ...]:
    """Return the platforms of a repeatable option whose values may be comma lists, in order and each once.

    Raises :class:`UsageError`.
    """
    platforms: dict[Platform, Platform] = {}
    for value in values:
        for text in value.split(","):
            platform = Platform.parse(text.strip(" "))
            platforms.setdefault(platform.normalized(), platform)
    return tuple(platforms.values())
