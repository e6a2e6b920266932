"""``imgtar load``."""

from __future__ import annotations

from typing import Annotated, Any

from imgtar.cli import options
from imgtar.cli.console import Console, console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.errors import UsageError
from imgtar.text import human_size, printable, shown


def command(
    outer: Outer,
    images: Annotated[list[str] | None, Argument("[IMAGE]...", help="Load only these; default: all.")] = None,
    archives: Annotated[
        list[str] | None,
        Option(
            "-i",
            "--input",
            metavar="ARCHIVE",
            help="A file, - for standard input, an OCI layout directory, or a folder of archives. May be repeated: all are one load.",
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and write nothing.")] = False,
    tags: Annotated[
        list[str] | None,
        Option(
            "--tag",
            metavar="OLD=NEW",
            help="Rename on the way in; NEW alone for a single untagged image. May be repeated.",
        ),
    ] = None,
    no_clobber: Annotated[bool, Option("--no-clobber", help="Refuse to move an existing tag.")] = False,
    parents: options.Parents = "require",
    require_base: options.RequireBase = False,
    partial: Annotated[
        bool, Option("--partial", help="Load every image that is complete, and say which were left.")
    ] = False,
    strict: Annotated[bool, Option("--strict", help="Turn warnings into refusals.")] = False,
    platforms: options.Platforms = None,
    jobs: options.Jobs = None,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> int | None:
    """Read images from archives into the store: all of it, or nothing.

    Every byte is verified, and everything an image stands on must be there before anything is committed.
    """
    from imgtar.graph.explain import describe_missing
    from imgtar.graph.select import Policy
    from imgtar.model.platform import parse_platforms
    from imgtar.ops.load import load

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    archives = archives or ["-"]
    if archives.count("-") > 1:
        raise UsageError("standard input can be read only once", hint="give -i - once")
    refuse_terminal(archives)
    policy = Policy(
        tuple(images or ()),
        parse_platforms(platforms or ()),
        tuple(_rename(text) for text in tags or ()),
        options.parents_policy(parents),
        no_clobber,
        require_base=require_base,
        partial=partial,
    )
    with out.reporting() as report:
        done = load(archives, out.store(report), policy, dry_run=dry_run, strict=strict, jobs=jobs, report=report)
    for finding in done.plan.findings:
        if finding.severity == "warning":
            out.note(f"warning[{finding.code}]: {finding.subject}: {finding.message}")
    for left in done.plan.left_behind:
        lines = "".join(f"\n  {describe_missing(gap)}" for gap in left.missing)
        out.warn(f"left behind: {printable(left.title)}{lines}")
        for hint in dict.fromkeys(gap.hint for gap in left.missing if gap.hint):
            out.warn(f"hint: {hint}")
    out.result("imgtar.load/1", done.to_json(), lambda: _show(out, done))
    if dry_run and done.plan.missing:
        from imgtar.cli.console import Failure, show_failure
        from imgtar.graph.explain import explain_missing

        error = explain_missing(done.plan.missing, "this would not load")
        return show_failure(Failure.of(error), as_json=False)
    return None


def _rename(text: str) -> tuple[str | None, str]:
    old, equals, new = text.partition("=")
    if equals and (not old or not new):
        raise UsageError(f"--tag {shown(text)} lacks one side", hint="write --tag OLD=NEW")
    return (old, new) if equals else (None, old)


def _show(out: Console, done: Any) -> None:
    plan = done.plan
    if done.dry_run:
        _show_plan(out, plan)
        return
    for move in plan.tags:
        out.line(f"Loaded image: {move.reference.familiar}")
    named = {root.descriptor.digest for root in plan.roots if root.references}
    for image in plan.images:
        if not image.names and image.digest not in named:
            out.line(f"Loaded image ID: {image.image_id}")
    for move in plan.tags:
        if move.moves:
            out.note(
                f"{move.reference.familiar} moved from {move.before} to {move.after}; the old image stays, untagged"
            )
    for root in plan.roots:
        if root.node.is_image and not root.references and root.unused_labels:
            label = printable(root.unused_labels[0])
            out.note(f"{label!r} alone is no image name: loaded without one; --tag {label}=NAME:TAG gives it one")
    receipt = done.receipt
    out.note(
        f"{human_size(receipt.bytes_written)} written in {receipt.blobs_written} blobs, "
        f"{human_size(receipt.bytes_reused)} in {receipt.blobs_reused} blobs were there already"
    )


def _show_plan(out: Console, plan: Any) -> None:
    for image in plan.images:
        names = ", ".join(image.names) or "(untagged)"
        platform = f"  {image.platform}" if image.platform else ""
        out.line(f"{image.state:8} {names}  {image.image_id}{platform}")
    for move in plan.tags:
        if move.moves:
            out.line(f"tag      {move.reference.familiar}: {move.before} -> {move.after}")
    if plan.missing:
        return  # What would be written if it could be is no answer.
    count = len(plan.writes)
    out.line(f"{plan.bytes_to_write} bytes would be written in {count} blobs, {plan.bytes_reused} bytes reused")
