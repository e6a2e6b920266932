"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Jobs", "Json", "LockTimeout", "Platforms", "Progress", "Quiet", "Store"]

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="The store to use; default: IMGTAR_STORE, or imgtar/store in the user's data directory.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write exactly one JSON document to standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Write only results and errors.")]
Progress = Annotated[
    str, typer.Option("--progress", metavar="auto|bar|plain|json|none", help="How to show progress on standard error.")
]
LockTimeout = Annotated[
    float,
    typer.Option("--lock-timeout", metavar="SECONDS", help="How long to wait for another imgtar that uses the store."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        max=64,
        metavar="N",
        help="How many blobs to handle at once; default: the number of cores, at most 8.",
    ),
]
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="Only these platforms; may be repeated, or a comma list. Default: all.",
    ),
]
