"""``imgtar repair``."""

from __future__ import annotations

from typing import Annotated, Any

from imgtar.cli import options
from imgtar.cli.console import Console, console, refuse_terminal
from imgtar.cli.declare import Option, Outer
from imgtar.cli.render.findings import show_findings
from imgtar.errors import UsageError
from imgtar.text import human_size, plural, printable


def command(
    outer: Outer,
    archives: Annotated[
        list[str] | None,
        Option(
            "-i",
            "--input",
            metavar="ARCHIVE",
            help="Where to take damaged and missing blobs from: a file, -, a layout directory, a folder of archives. May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done and change nothing.")] = False,
    jobs: options.Jobs = None,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> int | None:
    """Bring a damaged store back into shape. Nothing is deleted.

    The index is restored from its kept copy, or rebuilt from the blobs; damaged blobs are set aside in imgtar/damaged;
    what images lack then is taken from the archives given.
    """
    from imgtar.ops.repair import repair

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    archives = archives or []
    if archives.count("-") > 1:
        raise UsageError("standard input can be read only once", hint="give -i - once")
    refuse_terminal(archives)
    with out.reporting() as report:
        done = repair(out.store(report), archives, dry_run=dry_run, jobs=jobs, report=report)
    show_findings(done.findings)
    out.result("imgtar.repair/1", done.to_json(), lambda: _show(out, done))
    return done.exit_code


def _show(out: Console, done: Any) -> None:
    would = "would be " if done.dry_run else ""
    for path in done.marks:
        out.line(f"{path}: {would}written anew")
    if done.index.state != "whole":
        source = (
            "from its kept copy"
            if done.index.state == "restored"
            else "from its remains and the documents among the blobs"
        )
        place = f"; the old one is now {done.index.set_aside}" if done.index.set_aside else ""
        out.line(f"index.json: {would}{done.index.state} {source} ({printable(done.index.reason)}){place}")
    if done.index.found and not done.names:
        found = plural(done.index.found, "image")
        out.note(f"{found} without a name; imgtar load -i ARCHIVE brings back the names that an archive has for them")
    for name in done.names:
        out.line(f"name brought back: {name}")
    for path, to in done.moved:
        out.line(f"{printable(path)}: {would}moved to {printable(to)}, where it belongs")
    for path, to, reason in done.set_aside:
        place = f" to {printable(to)}" if to else ""
        out.line(f"{printable(path)}: {would}set aside{place}: {printable(reason)}")
    for path in done.strange:
        out.note(f"{printable(path)} is no blob and no image needs it: left where it is")
    out.line(f"checked {plural(done.blobs_checked, 'blob')}, {done.bytes_checked} bytes")
    if done.notes_renewed:
        out.line(f"{plural(done.notes_renewed, 'note')} in imgtar/ put right")
    if done.brought.blobs_written:
        blobs, size = plural(done.brought.blobs_written, "blob"), human_size(done.brought.bytes_written)
        out.line(f"{blobs} ({size}) {would}taken from the archives")
    if done.left is None:
        return
    for image in done.left.archives[0].images:
        if not image["ok"]:
            out.line(f"BAD {', '.join(image['names']) or '(untagged)'}  {image['image_id'] or ''}")
    out.line("the store is NOT whole" if done.exit_code else "the store is whole")
