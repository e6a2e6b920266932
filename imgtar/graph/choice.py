"""Which image of an index an engine takes for its machine. Engines have different rules; they must come to one image.

Found by giving indexes to Docker 20.10 and 26, containerd 1.6, podman 4.3 and 5.4 and skopeo 1.9. Sources: containerd
images/image.go (Manifest) and platforms/compare.go, moby daemon/containerd/image_manifest.go, containers/image
internal/pkg/platform/platform_matcher.go and manifest/oci_index.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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


def choices(images: Sequence[Node]) -> Iterator[Choice]:
    """What engines take of ``images``, those of one index in its order; first on linux/amd64, if one is for that."""
    # One without its config runs nowhere: it was not shipped, or is damaged, and that is said elsewhere.
    shelf = _Shelf([node for node in images if node.config is not None])
    # Which Windows image is taken depends on the build of the host as well.
    order = sorted(shelf.architectures, key=lambda architecture: architecture != _AMD64.architecture)
    return (_on(Platform(_AMD64.os, architecture), shelf) for architecture in order)


def preferred(images: Sequence[Node]) -> Node:
    """The one of ``images`` to show where only one can be: what engines take on linux/amd64, else the first."""
    first = next(choices(images), None)
    taken = list(first.by.values()) if first is not None and first.platform == _AMD64 else []
    return taken[0] if taken else images[0]


def one_image_for_each_platform(root: Node) -> None:
    """Refuse an index of which engines would take different images (``E_TYPE``).

    That is one with two images for one platform, and one in which the rules of engines come to different images on the
    machine that counts most. One image in several forms, as its ID says, is no question.
    """
    every = list(nodes_of(root))
    images = [node for node in every if node.is_image]
    if len({_image_id(node) for node in images}) < 2:
        return
    for node in every:
        if node.index is not None and node.descriptor.platform is not None:
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
    first = next(choices(images), None)
    if first is not None and not first.agreed:
        message = f"engines on {printable(str(first.platform))} would take different images: {first.listing}"
        raise _refused(message, root)


def _refused(message: str, root: Node) -> Refused:
    hint = "platforms in the index and in the configs contradict each other: make the index again"
    return Refused("E_TYPE", message, where=str(root.descriptor.digest), hint=hint)


def _image_id(node: Node) -> Digest:
    assert node.manifest is not None
    return node.manifest.config.digest


@frozen
class _Entry:
    """An image in its place, with the platforms that its descriptor and its config say, normalised."""

    place: int
    node: Node
    said: Platform | None
    own: Platform | None


class _Shelf:
    """Images by the architecture that they are for: an index may have thousands, each for another."""

    def __init__(self, images: Sequence[Node]) -> None:
        self.entries: list[_Entry] = []
        self.architectures: dict[str, None] = {}
        self._by_said: dict[str, list[_Entry]] = {}
        self._by_own: dict[str, list[_Entry]] = {}
        self.unsaid: list[_Entry] = []
        for place, node in enumerate(images):
            said = node.descriptor.platform
            config = node.config.platform if node.config is not None else None
            own = config.normalized() if config is not None else None
            entry = _Entry(place, node, said.normalized() if said is not None else None, own)
            self.entries.append(entry)
            if entry.said is None:
                self.unsaid.append(entry)
            for platform, table in ((entry.said, self._by_said), (own, self._by_own)):
                if platform is not None and platform.os == _AMD64.os and platform.architecture:
                    self.architectures.setdefault(platform.architecture)
                    table.setdefault(platform.architecture, []).append(entry)

    def said(self, architectures: Iterable[str]) -> Iterator[_Entry]:
        """Those whose descriptor names one of the architectures."""
        return (entry for one in architectures for entry in self._by_said.get(one, ()))

    def own(self, architectures: Iterable[str]) -> Iterator[_Entry]:
        """Those whose config names one of the architectures."""
        return (entry for one in architectures for entry in self._by_own.get(one, ()))


def _on(machine: Platform, shelf: _Shelf) -> Choice:
    taken = {
        "containerd": _by_descriptor(machine, shelf),
        "Docker with the containerd store": _by_config(machine, shelf),
        "podman": _by_letter(machine, shelf),
    }
    return Choice(machine, {engine: entry.node for engine, entry in taken.items() if entry is not None})


def _runs(machine: Platform) -> tuple[tuple[str, str], ...]:
    return _RUNS.get(machine.architecture, ((machine.architecture, ""),))


def _best(ranked: Iterable[tuple[_Entry, Platform | None]], machine: Platform) -> _Entry | None:
    """The entry whose platform is the best for the machine, of equals the first."""
    runs = _runs(machine)
    fitting = [
        (runs.index((platform.architecture, platform.variant)), entry.place, entry)
        for entry, platform in ranked
        if platform is not None and (platform.architecture, platform.variant) in runs
    ]
    return min(fitting, key=lambda one: one[:2])[2] if fitting else None


def _by_descriptor(machine: Platform, shelf: _Shelf) -> _Entry | None:
    """containerd: the platform of the descriptor, normalised, the best first; without one that of the config, last."""
    architectures = dict.fromkeys(architecture for architecture, _ in _runs(machine))
    said = _best(((entry, entry.said) for entry in shelf.said(architectures)), machine)
    if said is not None:
        return said
    return _best(((entry, entry.own) for entry in shelf.own(architectures) if entry.said is None), machine)


def _by_config(machine: Platform, shelf: _Shelf) -> _Entry | None:
    """Docker with the containerd store: the platform of the config, whatever the descriptor says.

    It is normalised: x86_64, another case and no system at all mean the same to it; i386 was not taken for 386. Docker 26
    takes the first that the machine runs at all, and the first of all when it runs none. Here it is the best that the
    machine runs: else the 386 of an honest index that is sorted by name would be in the way of its amd64.
    """
    architectures = dict.fromkeys(architecture for architecture, _ in _runs(machine))
    best = _best(((entry, entry.own) for entry in shelf.own(architectures) if not _says_i386(entry.node)), machine)
    return best or next(iter(shelf.entries), None)


def _says_i386(node: Node) -> bool:
    own = node.config.platform if node.config is not None else None
    return own is not None and own.architecture != "386" and own.normalized().architecture == "386"


def _by_letter(machine: Platform, shelf: _Shelf) -> _Entry | None:
    """podman, skopeo, buildah: the descriptor to the letter, never normalised; then the first without a platform."""
    written = {
        platform.variant: entry
        for entry in reversed(list(shelf.said([machine.architecture])))
        if (platform := entry.node.descriptor.platform) is not None
        and (platform.os, platform.architecture) == (machine.os, machine.architecture)
    }
    for variant in _LITERAL.get(machine.architecture, ("",)):
        if variant in written:
            return written[variant]
    return next(iter(shelf.unsaid), None)
