"""``imgtar save``."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

from imgtar.cli import options
from imgtar.cli.console import Console, console
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.errors import UsageError
from imgtar.text import human_size, plural, shown

_FORMS = ("hybrid", "docker", "oci", "oci-dir")


def command(
    outer: Outer,
    images: Annotated[list[str], Argument("IMAGE...", help="Names (without a tag: all tags), IDs or digests.")],
    output: Annotated[
        str, Option("-o", "--output", metavar="FILE", help="Where to write; - for standard output.")
    ] = "-",
    form: Annotated[
        str, Option("--format", metavar="|".join(_FORMS), help="Default: hybrid, which every engine loads.")
    ] = "hybrid",
    compress: Annotated[
        str, Option("--compress", metavar="none|gzip|zstd[:LEVEL]", help="Compress the archive as a whole.")
    ] = "none",
    layers: Annotated[
        str,
        Option(
            "--layers",
            metavar="keep|none|gzip|zstd[:LEVEL]",
            help="Compression of the layers; keep leaves bytes and digests.",
        ),
    ] = "keep",
    base: Annotated[
        list[str] | None,
        Option(
            "--base",
            metavar="WHERE",
            help="Leave out what this holds: an image of the store, an archive, a layout or an inventory file. May be repeated.",
        ),
    ] = None,
    receivers: Annotated[
        list[str] | None,
        Option(
            "--for",
            metavar="WHERE",
            help="The same, but for several receivers of one archive: leave out only what all of them hold.",
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would go in and why, and write nothing.")] = False,
    explain: Annotated[
        str | None,
        Option(
            "--explain",
            metavar="DIGEST",
            help="Say why this blob (digest, diff ID, or its beginning) goes in or not; write nothing.",
        ),
    ] = None,
    platforms: options.Platforms = None,
    jobs: options.Jobs = None,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Write images from the store into an archive. The same images give the same bytes."""
    from imgtar.blob.compression import parse_compression
    from imgtar.model.platform import parse_platforms
    from imgtar.ops.save import SaveOptions, save
    from imgtar.transport.writer import Form

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    if form not in _FORMS:
        raise UsageError(f"--format {shown(form)} is not known", hint=f"one of {', '.join(_FORMS)}")
    dry_run = dry_run or explain is not None
    if output == "-" and not dry_run:
        if as_json:
            raise UsageError("the archive and the JSON document cannot both go to standard output", hint="give -o FILE")
        if sys.stdout.isatty():
            raise UsageError("refusing to write an archive to a terminal", hint="give -o FILE, or pipe it on")
    compression, level = parse_compression(compress)
    layer_kind, layer_level = parse_compression(layers) if layers != "keep" else (None, None)
    if form == "oci-dir" and compress != "none":
        raise UsageError("a directory cannot be compressed as a whole", hint="use --format oci, or --layers")
    wanted = SaveOptions(
        cast(Form, form),
        compression,
        level,
        layer_kind,
        layer_level,
        parse_platforms(platforms or ()),
        tuple(base or ()),
        tuple(receivers or ()),
    )
    target: str | int = sys.stdout.fileno() if output == "-" and not dry_run else output
    with out.reporting() as report:
        done = save(images, out.store(report), target, wanted, dry_run=dry_run, jobs=jobs, report=report)
    if explain is not None:
        explained = done.about(explain)
        document = {**done.to_json(), "explained": [fate.to_json() for fate in explained]}
        out.result("imgtar.save/1", document, lambda: _show_fates(out, explained, done.record))
    elif output != "-" or dry_run:
        out.result("imgtar.save/1", done.to_json(), lambda: _show(out, done))
    elif done.based:
        _note_thin(out, done)


def _show(out: Console, done: Any) -> None:
    if done.written is None:
        left = [fate for fate in done.fates if not fate.carried]
        for fate in done.fates:
            place = ("in   " if fate.carried else "out  ") if done.based else ""
            why = f": {fate.reason}" if place else ""
            out.line(f"{place}{fate.size:>14}  {fate.digest}  {fate.title}{why}")
        out.line(f"{done.plan.bytes_to_write:>14}  bytes in {len(done.plan.writes)} blobs")
        if done.based:
            out.line(f"{sum(fate.size for fate in left):>14}  bytes in {len(left)} blobs left out")
        return
    checksum = f", sha256 {done.written.sha256}" if done.written.sha256 else ""
    out.note(f"{done.path}: {human_size(done.written.size)} in {done.written.blobs} blobs{checksum}")
    if done.based:
        _note_thin(out, done)


def _note_thin(out: Console, done: Any) -> None:
    left = [fate for fate in done.fates if not fate.carried]
    if done.record is None:
        out.note("nothing could be left out: this is the full archive; --dry-run says why of each blob")
        return
    bases = ", ".join(base.title for base in done.record.bases)
    size = human_size(sum(fate.size for fate in left))
    out.note(f"thin: {plural(len(left), 'blob')} ({size}) left out; it loads only where {bases or 'they'} can be found")


def _show_fates(out: Console, fates: Any, record: Any) -> None:
    for fate in fates:
        out.line(f"{fate.digest}  {fate.size} bytes")
        out.line(f"  {fate.title}")
        if fate.diff_id is not None and fate.diff_id != fate.digest:
            out.line(f"  diff ID {fate.diff_id}")
        out.line(f"  {'goes in' if fate.carried else 'left out'}: {fate.reason}")
        if record is not None and not fate.carried:
            out.line(f"  needed by {', '.join(image.title for image in record.needed_by(fate.digest))}")
