"""Images, layers and histories as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from imgtar.cli.console import Console
from imgtar.text import human_size, plural, printable

__all__ = ["show_history", "show_inspection", "show_list"]


def table(out: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write columns, each as wide as its widest cell."""
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        out.line("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def short(identity: str | None, *, full: bool) -> str:
    """An ID as Docker shows it: twelve digits, or everything."""
    if identity is None:
        return "<none>"
    return identity if full else identity.partition(":")[2][:12]


def ago(created: str | None) -> str:
    """How long ago, in words, as Docker says it."""
    if created is None:
        return "N/A"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created.replace("Z", "+00:00"))).total_seconds()
    for unit, length in (
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
    ):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def show_list(out: Console, rows: Sequence[dict[str, Any]], *, digests: bool, no_trunc: bool, only_ids: bool) -> None:
    """``imgtar images``."""
    if only_ids:
        for identity in dict.fromkeys(row["image_id"] or row["digest"] for row in rows):
            out.line(short(identity, full=no_trunc))
        return
    platforms = len({row["platform"] for row in rows}) > 1
    head = [
        "REPOSITORY",
        "TAG",
        *(["DIGEST"] if digests else []),
        "IMAGE ID",
        *(["PLATFORM"] if platforms else []),
        "CREATED",
        "SIZE",
    ]
    lines = []
    for row in rows:
        repository, _, tag = row["name"].rpartition(":") if row["name"] else ("<none>", "", "<none>")
        digest = [row["digest"] if no_trunc else row["digest"][:19]] if digests else []
        platform = [row["platform"] or "-"] if platforms else []
        size = human_size(row["size"]) if row["size"] is not None else "damaged"
        lines.append(
            [repository, tag, *digest, short(row["image_id"], full=no_trunc), *platform, ago(row["created"]), size]
        )
    table(out, head, lines)


def show_inspection(out: Console, document: dict[str, Any]) -> None:
    """``imgtar inspect``."""
    archive = document["archive"]
    parts = [archive["format"]]
    if archive["compression"] != "none":
        parts.append(f"{archive['compression']} compressed")
    if archive["size"] is not None:
        parts.append(f"{archive['size']} bytes")
    if archive["thin"]:
        parts.append("thin")
    out.line(f"{archive['path']}: {', '.join(parts)}")
    required = {one["digest"] for one in document["requires"]}
    if required:
        size = human_size(sum(one["size"] for one in document["requires"]))
        out.line(f"requires {plural(len(required), 'blob')} ({size}) of its receiver:")
        for base in document["bases"]:
            names = ", ".join(base["names"]) or "(untagged)"
            count = sum(1 for one in document["requires"] if one["base"] == base)
            out.line(f"  {plural(count, 'blob')} of {names}  {base['image_id'] or base['digest']}")
    for image in document["images"]:
        _show_root(out, image, required)
    for other in document["other"]:
        _show_other(out, other, "")
    for gap in document["missing"]:
        what = gap["digest"] or gap["diff_id"] or gap["expected_in"]
        out.line(f"missing: {gap['kind']} {what}, needed by {', '.join(gap['needed_by'])} ({gap['class']})")
    for finding in document["findings"]:
        out.line(f"{finding['severity']}[{finding['code']}]: {finding['subject']}: {finding['message']}")


def _show_root(out: Console, image: dict[str, Any], required: Collection[str]) -> None:
    out.line()
    if "manifests" not in image:
        _show_image(out, image, ", ".join(image["names"]) or "(untagged)", required)
        return
    out.line(", ".join(image["names"]) or "(untagged)")
    out.line(f"  index     {image['digest']}")
    for child in image["manifests"]:
        if "manifests" in child:
            _show_root(out, child, required)
        else:
            _show_image(out, child, f"  {child['platform'] or 'no platform'}", required, "  ")
    for absent in image["absent"]:
        out.line(f"  {absent['platform'] or 'a platform'} is not in the archive ({absent['digest']})")
    for other in image["other"]:
        _show_other(out, other, "  ")


def _show_image(out: Console, image: dict[str, Any], title: str, required: Collection[str], indent: str = "") -> None:
    out.line(title)
    facts = [
        ("image ID", image["image_id"]),
        ("digest", image["digest"]),
        ("platform", image["platform"]),
        ("created", image["created"]),
    ]
    if image["parent"]:
        facts.append(
            ("parent", image["parent"].get("image_id") or image["parent"].get("digest") or image["parent"]["name"])
        )
    for label, value in facts:
        if value:
            out.line(f"{indent}  {label:9} {value}")
    out.line(f"{indent}  size      {human_size(image['size'])} in {len(image['layers'])} layers")
    for place, layer in enumerate(image["layers"], 1):
        size = human_size(layer["size"]) if layer["size"] is not None else "?"
        lack = "" if layer["present"] else "  required" if layer["digest"] in required else "  NOT HERE"
        step = printable(layer["created_by"] or "", limit=60)
        out.line(
            f"{indent}  {place:>3}  {layer['digest'] or layer['diff_id']}  {size:>8}  {layer['compression'] or '':5}{lack}  {step}".rstrip()
        )


def _show_other(out: Console, other: dict[str, Any], indent: str) -> None:
    about = f" for {other['subject']}" if other["subject"] else ""
    lack = "" if other["present"] else ", not here"
    out.line(f"{indent}{other['artifact_type'] or other['media_type']}  {other['digest']}{about}{lack}")


def show_history(out: Console, images: Sequence[dict[str, Any]], *, no_trunc: bool) -> None:
    """``imgtar history``."""
    for place, image in enumerate(images):
        if len(images) > 1:
            if place:
                out.line()
            out.line(f"{', '.join(image['names']) or '(untagged)'}  {image['platform'] or ''}  {image['image_id']}")
        rows = []
        for step in image["history"]:
            created_by = " ".join(step["created_by"].split()) if not no_trunc else step["created_by"]
            if not no_trunc and len(created_by) > 45:
                created_by = created_by[:44] + "…"
            size = human_size(step["size"]) if step["size"] is not None else "?"
            rows.append(
                [short(step["digest"], full=no_trunc), ago(step["created"]), created_by, size, step["comment"] or ""]
            )
        table(out, ["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"], rows)
