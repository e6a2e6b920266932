"""Which image of an index an engine takes for its machine. Engines have different rules; they must come to one image.

Found by giving indexes to Docker 20.10 and 26, containerd 1.6, podman 4.3 and 5.4 and skopeo 1.9. Sources: containerd
images/image.go (Manifest) and platforms/compare.go, moby daemon/containerd/image_manifest.go, containers/image
internal/pkg/platform/platform_matcher.go and manifest/oci_index.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.graph.walk import Node, nodes_of, platform_of
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform
from imgtar.text import printable

__all__ = ["Choice", "choices", "one_image_for_each_platform", "preferred"]

_AMD64 = Platform("linux", "amd64")
# What a machine without special features runs, the best first.
_RUNS = {
    "amd64": (("amd64", ""), ("386", "")),
    "arm64": (("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")),
    "arm": (("arm", "v7"), ("arm", "v6"), ("arm", "v5")),
}
_LITERAL = {"arm64": ("v8", ""), "arm": ("v7", "v6", "v5", "")}


@frozen
class Choice:
    """What engines take on a machine of one platform: each that takes anything, by what it is called in a message."""

    platform: Platform
    by: dict[str, Node]

    @property
    def agreed(self) -> bool:
        """Whether all of them take one image."""
        return len({_image_id(node) for node in self.by.values()}) <= 1

    @property
    def listing(self) -> str:
        """Who takes what, for a message."""
        return ", ".join(f"{engine} takes {node.descriptor.digest}" for engine, node in self.by.items())


def choices(root: Node, wanted: Callable[[Node], bool] = lambda _: True) -> Iterator[Choice]:
    """What engines take of the ``wanted`` images at or below ``root``: first on linux/amd64, then for what else is there."""
    shelf = _Shelf(root, wanted)
    # Which Windows image is taken depends on the build of the host as well.
    order = dict.fromkeys((_AMD64.architecture, *shelf.architectures))
    return (_on(Platform(_AMD64.os, architecture), shelf) for architecture in order)


def preferred(root: Node, wanted: Callable[[Node], bool] = lambda _: True) -> Node | None:
    """The image to show where only one can be: what engines take on linux/amd64, else the first; ``None`` without any."""
    first = next(choices(root, wanted))
    return next(iter(first.by.values()), None)


def one_image_for_each_platform(root: Node) -> None:
    """Refuse an index of which engines would take different images (``E_TYPE``).

    That is one with two images for one platform, and one in which the rules of engines come to different images on
    linux/amd64, or, with nothing for that, on the first platform that is there. One image in several forms, as its ID
    says, is no question.
    """
    every = list(nodes_of(root))
    images = [node for node in every if node.is_image]
    if len({_image_id(node) for node in images}) < 2:
        return
    for node in every:
        if node is not root and node.index is not None and node.descriptor.platform is not None:
            # containerd and podman look at that before they go in, Docker does not.
            name = printable(str(node.descriptor.platform))
            raise _refused(f"the index {node.descriptor.digest} inside it is itself given a platform, {name}", root)
    known: dict[object, Node] = {}
    for image in images:
        platform = platform_of(image)
        if platform is None:
            continue
        # Of two that differ in a feature every engine takes the first.
        other = known.setdefault((platform.machine, platform.os_features), image)
        if _image_id(other) != _image_id(image):
            name = printable(str(platform.normalized()))
            found = f"{other.descriptor.digest} and {image.descriptor.digest}"
            raise _refused(f"the index has two images for {name}: {found}", root)
    here = any(_is_for(node, _AMD64.architecture) for node in images)
    for choice in islice(choices(root), 1 if here else 2):
        if not choice.agreed:
            message = f"engines on {printable(str(choice.platform))} would take different images: {choice.listing}"
            raise _refused(message, root)


def _is_for(node: Node, architecture: str) -> bool:
    platform = platform_of(node)
    return platform is not None and platform.normalized().architecture == architecture


def _refused(message: str, root: Node) -> Refused:
    hint = "platforms in the index and in the configs contradict each other: make the index again"
    return Refused("E_TYPE", message, where=str(root.descriptor.digest), hint=hint)


def _image_id(node: Node) -> Digest:
    assert node.manifest is not None
    return node.manifest.config.digest


class _Shelf:
    """Images by the architecture that they are for: an index may have thousands, each for another."""

    def __init__(self, root: Node, wanted: Callable[[Node], bool]) -> None:
        self.root = root
        # One without its config runs nowhere: it was not shipped, or is damaged, and that is said elsewhere.
        self.images = [node for node in nodes_of(root) if node.is_image and node.config is not None and wanted(node)]
        self.place = {id(node): place for place, node in enumerate(self.images)}
        self.architectures: dict[str, None] = {}
        self._said: dict[tuple[int, str], list[tuple[Platform, Node]]] = {}
        self._own: dict[str, list[tuple[Platform, Node]]] = {}
        for above in nodes_of(root):
            for node in above.children:
                if id(node) in self.place and node.descriptor.platform is not None:
                    platform = node.descriptor.platform.normalized()
                    self._enter(platform, node, self._said.setdefault((id(above), platform.architecture), []))
        for node in self.images:
            if node.config is not None:
                platform = node.config.platform.normalized()
                self._enter(platform, node, self._own.setdefault(platform.architecture, []))

    def _enter(self, platform: Platform, node: Node, table: list[tuple[Platform, Node]]) -> None:
        if platform.os == _AMD64.os and platform.architecture:
            self.architectures.setdefault(platform.architecture)
            table.append((platform, node))

    def said(self, above: Node, machine: Platform) -> list[tuple[Platform, Node]]:
        """Those that an index itself lists, by the platform of their descriptor."""
        return [pair for one in _architectures(machine) for pair in self._said.get((id(above), one), ())]

    def own(self, machine: Platform) -> list[tuple[Platform, Node]]:
        """All images at any depth, by the platform of their config."""
        return [pair for one in _architectures(machine) for pair in self._own.get(one, ())]

    def best(self, pairs: Iterable[tuple[Platform, Node]], machine: Platform) -> Node | None:
        """The one whose platform is the best for the machine, of equals the first."""
        runs = _runs(machine)
        ranked = [
            (runs.index((platform.architecture, platform.variant)), self.place[id(node)], node)
            for platform, node in pairs
            if (platform.architecture, platform.variant) in runs
        ]
        return min(ranked, key=lambda one: one[:2])[2] if ranked else None


def _runs(machine: Platform) -> tuple[tuple[str, str], ...]:
    return _RUNS.get(machine.architecture, ((machine.architecture, ""),))


def _architectures(machine: Platform) -> dict[str, None]:
    return dict.fromkeys(architecture for architecture, _ in _runs(machine))


def _on(machine: Platform, shelf: _Shelf) -> Choice:
    taken = {
        "containerd": _by_descriptor(machine, shelf.root, shelf),
        "Docker with the containerd store": _by_config(machine, shelf),
        "podman": _by_letter(machine, shelf.root, shelf),
    }
    return Choice(machine, {engine: node for engine, node in taken.items() if node is not None})


def _by_descriptor(machine: Platform, above: Node, shelf: _Shelf) -> Node | None:
    """containerd: the platform of the descriptor, normalised, the best first; else the first entry without one.

    Of that the config must fit, and no other entry is tried.
    """
    said = shelf.best(shelf.said(above, machine), machine)
    if said is not None:
        return said
    first = _first_unsaid(above, shelf)
    if first is None or first.index is not None:
        return _by_descriptor(machine, first, shelf) if first is not None else None
    return shelf.best([(first.config.platform.normalized(), first)], machine) if first.config is not None else None


def _by_config(machine: Platform, shelf: _Shelf) -> Node | None:
    """Docker with the containerd store: the platform of the config, whatever the descriptor says.

    It is normalised: x86_64, another case and no system at all mean the same to it; i386 was not taken for 386. Docker 26
    takes the first that the machine runs at all, and the first of all when it runs none. Here it is the best that the
    machine runs: else the 386 of an honest index that is sorted by name would be in the way of its amd64.
    """
    best = shelf.best((pair for pair in shelf.own(machine) if not _says_i386(pair[1])), machine)
    return best or next(iter(shelf.images), None)


def _says_i386(node: Node) -> bool:
    own = node.config.platform if node.config is not None else None
    return own is not None and own.architecture != "386" and own.normalized().architecture == "386"


def _by_letter(machine: Platform, above: Node, shelf: _Shelf) -> Node | None:
    """podman, skopeo, buildah: the descriptor to the letter, never normalised; else the first entry without a platform."""
    written = {
        platform.variant: node
        for _, node in reversed(shelf.said(above, machine))
        if (platform := node.descriptor.platform) is not None
        and (platform.os, platform.architecture) == (machine.os, machine.architecture)
    }
    for variant in _LITERAL.get(machine.architecture, ("",)):
        if variant in written:
            return written[variant]
    first = _first_unsaid(above, shelf)
    return _by_letter(machine, first, shelf) if first is not None and first.index is not None else first


def _first_unsaid(above: Node, shelf: _Shelf) -> Node | None:
    """The first entry of an index without a platform, an image or another index; the image itself where there is no index."""
    if above.index is None:
        return above if id(above) in shelf.place else None
    return next(
        (
            node
            for node in above.children
            if node.descriptor.platform is None and (node.index is not None or id(node) in shelf.place)
        ),
        None,
    )
