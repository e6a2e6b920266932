"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from imgtar.cli.declare import Option
from imgtar.errors import UsageError
from imgtar.text import shown

__all__ = [
    "STORE",
    "Jobs",
    "Json",
    "LockTimeout",
    "Parents",
    "Platforms",
    "Progress",
    "Quiet",
    "RequireBase",
    "Store",
    "parents_policy",
]

STORE = Option(
    "--store",
    metavar="PATH",
    help="The store to use; default: IMGTAR_STORE, or imgtar/store in the user's data directory.",
)
"""By itself, for it may also stand before the command."""
Store = Annotated[str | None, STORE]
Json = Annotated[bool, Option("--json", help="Write exactly one JSON document to standard output.")]
Quiet = Annotated[bool, Option("-q", "--quiet", help="Write only results and errors.")]
Progress = Annotated[
    str, Option("--progress", metavar="auto|bar|plain|json|none", help="How to show progress on standard error.")
]
LockTimeout = Annotated[
    float,
    Option("--lock-timeout", metavar="SECONDS", help="How long to wait for another imgtar that uses the store."),
]
Jobs = Annotated[
    int | None,
    Option(
        "-j",
        "--jobs",
        min=1,
        max=64,
        metavar="N",
        help="How many blobs to handle at once; default: the number of cores, at most 8.",
    ),
]
Parents = Annotated[
    str,
    Option("--parents", metavar="require|warn|ignore", help="What a declared but absent parent image means."),
]
RequireBase = Annotated[
    bool,
    Option("--require-base", help="The base image that annotations name must be there, as a declared parent must."),
]
Platforms = Annotated[
    list[str] | None,
    Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="Only these platforms; may be repeated, or a comma list. Default: all.",
    ),
]


def parents_policy(text: str) -> Literal["require", "warn", "ignore"]:
    """The value of ``--parents``. Raises :class:`UsageError`."""
    if text not in ("require", "warn", "ignore"):
        raise UsageError(f"--parents {shown(text)} is not known", hint="one of require, warn, ignore")
    return cast(Literal["require", "warn", "ignore"], text)
