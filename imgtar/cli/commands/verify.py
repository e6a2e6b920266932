"""``imgtar verify``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated, Any

from imgtar.cli import options
from imgtar.cli.console import Console, console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.cli.render.findings import show_findings
from imgtar.errors import UsageError
from imgtar.text import human_size, plural, printable


def command(
    outer: Outer,
    archives: Annotated[
        list[str] | None,
        Argument("[ARCHIVE]...", help="Files, - or layout directories; none: the store."),
    ] = None,
    against: Annotated[
        list[str] | None,
        Option(
            "--against",
            metavar="WHERE",
            help="Would these archives load there, all together? A store's folder, an inventory file, an archive, or the word store. May be repeated.",
        ),
    ] = None,
    parents: Annotated[
        str | None,
        Option("--parents", metavar="require|warn|ignore", help="As for load; goes with --against."),
    ] = None,
    require_base: options.RequireBase = False,
    fast: Annotated[bool, Option("--fast", help="Check structure and small documents only.")] = False,
    strict: Annotated[bool, Option("--strict", help="Turn warnings into refusals.")] = False,
    subset: Annotated[
        str | None,
        Option("--subset", metavar="K/N", help="Of the store, read only the Kth of N parts: 1/7 today, 2/7 tomorrow."),
    ] = None,
    report_file: Annotated[
        str | None, Option("--report", metavar="FILE", help="Write the JSON document to FILE as well.")
    ] = None,
    platforms: options.Platforms = None,
    jobs: options.Jobs = None,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> int | None:
    """Prove that archives, or the store, are whole and good, without loading anything.

    Checks the container's structure to the last byte, every blob's digest and size, every layer's diff ID, and that
    everything that is referred to is there. All findings are listed, not only the first.
    """
    from imgtar.blob.files import write_all
    from imgtar.graph.select import Policy
    from imgtar.model.platform import parse_platforms
    from imgtar.ops.verdict import Subset
    from imgtar.ops.verify import verify
    from imgtar.ops.where import refuse_to_replace
    from imgtar.transport.target import whole_file

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    refuse_terminal(archives or [])
    if against and not archives:
        raise UsageError("--against asks whether archives would load there", hint="name the archives as well")
    if not against and (parents is not None or require_base or platforms):
        raise UsageError(
            "--parents, --require-base and --platform say how a load is meant",
            hint="add --against WHERE: an archive alone is judged as it is",
        )
    if subset is not None and (archives or fast):
        raise UsageError("--subset is for reading the blobs of the store", hint="leave out the archives and --fast")
    policy = Policy(
        platforms=parse_platforms(platforms or ()),
        parents=options.parents_policy(parents or "require"),
        require_base=require_base,
    )
    if report_file is not None:
        refuse_to_replace(report_file, archives or [], out.store())
    with ExitStack() as stack:
        # Opened first: a report that cannot be written is better known before hours of reading than after.
        fd = stack.enter_context(whole_file(report_file)) if report_file is not None else None
        with out.reporting() as report:
            where = out.store(report) if against or not archives else None
            done = verify(
                archives or [],
                where,
                against=tuple(against or ()),
                policy=policy,
                fast=fast,
                strict=strict,
                subset=Subset.parse(subset) if subset is not None else None,
                jobs=jobs,
                report=report,
            )
        if fd is not None:
            document = json.dumps({"schema": "imgtar.verify/1", **done.to_json()}, indent=2) + "\n"
            write_all(fd, document.encode())
    show_findings(done.findings)
    out.result("imgtar.verify/1", done.to_json(), lambda: _show(out, done))
    return done.exit_code


def _show(out: Console, done: Any) -> None:
    counting = ("error", "warning") if done.strict else ("error",)
    for archive in done.archives:
        faults = [finding for finding in archive.findings if finding.severity in counting]
        verdict = "OK" if not faults else f"FAILED ({plural(len(faults), 'finding')})"
        out.line(f"{archive.path}: {verdict}")
        if archive.form:
            size = f", {archive.size} bytes" if archive.size is not None else ""
            out.line(f"  {archive.form}{size}{', thin' if archive.thin else ''}")
        if archive.sha256:
            out.line(f"  sha256:{archive.sha256}")
        for image in archive.images:
            names = ", ".join(image["names"]) or "(untagged)"
            out.line(f"  {'ok ' if image['ok'] else 'BAD'} {names}  {image['image_id'] or ''}")
        if archive.form is None:
            continue  # It was not recognised: nothing in it could be checked.
        depth = "documents" if done.fast else "digests, sizes and diff IDs"
        if done.subset is not None:
            depth += f", part {done.subset.part} of {done.subset.of}"
        ballast = f"; {archive.ballast} of them unreferenced" if archive.ballast else ""
        out.line(f"  checked {archive.blobs_checked} blobs, {archive.bytes_checked} bytes: {depth}{ballast}")
    for place in done.places:
        _show_place(out, place)


def _show_place(out: Console, place: Any) -> None:
    where = printable(place.where)
    if place.bytes_to_write is None:
        out.line(f"{where}: would be REFUSED there")
    elif place.missing:
        out.line(f"{where}: would NOT load there: {plural(len(place.missing), 'thing')} missing")
    else:
        written, reused = human_size(place.bytes_to_write), human_size(place.bytes_reused)
        out.line(f"{where}: would load there: {written} to write, {reused} there already")
