"""The dependency tree as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from imgtar.cli.console import Console
from imgtar.text import human_size, plural, printable

if TYPE_CHECKING:
    from imgtar.graph.deps import DependencyTree, ImageDeps
    from imgtar.graph.lineage import Parent
    from imgtar.graph.shares import SharedLayers
    from imgtar.model.digest import Digest
    from imgtar.ops.deps import Dependencies

__all__ = ["show_deps"]

_NAMED = 8
"""How many images are named in one line."""


def show_deps(out: Console, done: Dependencies, *, no_trunc: bool, shares: bool) -> None:
    """``imgtar deps``: the trees, with ``shares`` the layers that several images hold, and what is wrong."""
    tree = done.tree
    _show_trees(out, tree, no_trunc=no_trunc)
    if shares and tree.groups:
        out.line()
        out.line("shared layers:")
        order = {image.place: position for position, image in enumerate(tree.images)}
        for group in tree.groups:
            out.line(f"  {_shared(tree, group, order)}")
    problems = [finding for finding in done.findings if finding.severity == "error"]
    if done.missing or problems:
        out.line()
    for gap in done.missing:
        what = gap.digest or gap.diff_id or gap.expected_in
        out.line(f"missing: {gap.kind} {what}, needed by {', '.join(gap.needed_by)} ({gap.gap_class})")
    for finding in problems:
        out.line(f"{finding.severity}[{finding.code}]: {finding.subject}: {finding.message}")


def _show_trees(out: Console, tree: DependencyTree, *, no_trunc: bool) -> None:
    platforms = len({image.facts.platform for image in tree.images}) > 1
    last = {image.children[-1] for image in tree.images if image.children}
    # What stands left of an image's children: a chain of parents may be longer than Python calls go deep.
    indents: dict[int, str] = {}
    for image in tree.images:
        branch = ""
        if image.above is not None:
            left = indents[image.above]
            branch = f"{left}{'└─ ' if image.place in last else '├─ '}"
            indents[image.place] = f"{left}{'   ' if image.place in last else '│  '}"
        else:
            indents[image.place] = ""
        out.line(branch + _image(image, platforms=platforms, no_trunc=no_trunc))


def _image(image: ImageDeps, *, platforms: bool, no_trunc: bool) -> str:
    facts = image.facts
    words = [printable(", ".join(facts.names) or "(untagged)"), _short(facts.image_id, full=no_trunc)]
    if platforms:
        words.append(printable(str(facts.platform or "no platform")))
    size = human_size(image.size)
    if image.above is None:
        size += f" in {plural(len(facts.layers), 'layer')}"
    else:
        layers, added = image.added
        size += f", {human_size(added)} in {plural(layers, 'layer')} on top"
    if image.circular:
        size += f"; its parents lead back to it, {_learned(image.parent, no_trunc=no_trunc)}"
    elif image.parent is not None and not image.parent.present:
        size += f"; built on {_learned(image.parent, no_trunc=no_trunc)}"
    return "  ".join([*words, size])


def _learned(parent: Parent | None, *, no_trunc: bool) -> str:
    """The parent that could not be drawn, and how it was learned of."""
    assert parent is not None
    identity = parent.image_id or parent.digest
    words = [printable(parent.name)] if parent.name else []
    if identity is not None:
        words.append(_short(identity, full=no_trunc))
    how = parent.learned_from if parent.present else f"not here: {parent.learned_from}"
    return f"{' '.join(words)} ({printable(how)})"


def _shared(tree: DependencyTree, group: SharedLayers, order: Mapping[int, int]) -> str:
    # Those that are drawn come first, as they are drawn.
    places = sorted(group.places, key=lambda place: (order.get(place, len(order)), place))
    titles = [printable(tree.everything[place].title) for place in places[:_NAMED]]
    if len(group.places) > _NAMED:
        titles.append(f"and {len(group.places) - _NAMED} more")
    return f"{plural(group.layers, 'layer')}, {human_size(group.size)}: {', '.join(titles)}"


def _short(identity: Digest, *, full: bool) -> str:
    return str(identity) if full else f"{identity.algorithm}:{identity.short}"
