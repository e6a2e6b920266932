"""What is odd about an image though it does not change what is loaded: engines see it otherwise, or refuse it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imgtar.graph.catalog import Root
from imgtar.graph.choice import choices
from imgtar.graph.finding import Finding
from imgtar.graph.walk import Node, Part
from imgtar.model.digest import Digest
from imgtar.text import plural, printable

__all__ = ["LONGEST_REPOSITORY", "image_remarks", "part_remarks", "root_remarks"]

LONGEST_REPOSITORY = 255
"""Characters of a name with its registry and without its tag that engines take (distribution/reference, reference.go)."""


def root_remarks(node: Node, root: Root) -> Iterator[Finding]:
    """What is odd about a root as a whole: its names, and who would take which of its images."""
    for reference in root.references:
        length = len(reference.repository)
        if length > LONGEST_REPOSITORY:
            message = (
                f"with its registry the name has {length} characters; engines refuse more than {LONGEST_REPOSITORY}"
            )
            hint = "give it a shorter one: --tag OLD=NEW"
            yield Finding("E_NAME", "warning", printable(reference.familiar, limit=400), message, hint=hint)
    for choice in choices(node) if node.index is not None else ():
        if not choice.agreed:
            message = (
                f"{printable(root.title)}: engines on {choice.platform} would take different images: {choice.listing}"
            )
            yield Finding("E_TYPE", "warning", str(node.descriptor.digest), message)


def image_remarks(node: Node, title: str) -> Iterator[Finding]:
    """What a document says of an image that its config contradicts."""
    if node.config is None or node.manifest is None:
        return
    said, own = node.descriptor.platform, node.config.platform
    if said is not None and said.architecture and own.architecture:
        one, other = said.normalized(), own.normalized()
        if (one.os, one.architecture) != (other.os, other.architecture):
            message = f"{title}: the index says {printable(str(said))}, the config says {printable(str(own))}"
            yield Finding("E_TYPE", "warning", str(node.descriptor.digest), message)
    steps = sum(1 for entry in node.config.history if not entry.empty_layer)
    if node.config.history and steps > len(node.manifest.layers):
        message = (
            f"{title}: the history counts {steps} layers, there are {len(node.manifest.layers)}; Docker refuses that"
        )
        yield Finding("E_TYPE", "warning", str(node.manifest.config.digest), message)


def part_remarks(part: Part, title: str, carried: Callable[[Digest], bool]) -> Iterator[Finding]:
    """What is odd about where the bytes of a part are; ``carried`` tells whether somebody has them as a blob."""
    descriptor = part.descriptor
    if not descriptor.urls and descriptor.data is None:
        return  # Asked first: what the owner is costs a look at all its layers, for each of them.
    if part.owner.is_attestation or not (part.owner.is_image or part.owner.index is not None):
        return  # Engines do not look at artifacts.
    if descriptor.urls and carried(descriptor.digest):
        message = (
            f"{title} names {plural(len(descriptor.urls), 'URL')}: podman and skopeo fetch it from there, "
            "though the archive carries it"
        )
        hint = "save --layers gzip (or none), or --format docker, writes it without"
        yield Finding("E_TYPE", "warning", str(descriptor.digest), message, hint=hint)
    if descriptor.data is not None and not carried(descriptor.digest):
        message = f"{title} stands in its descriptor only, and not in blobs/: engines refuse that"
        yield Finding("E_TYPE", "warning", str(descriptor.digest), message, hint="loaded and saved again it is a blob")
