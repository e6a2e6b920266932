"""Which image of an index an engine takes for its machine. Engines have different rules; they must come to one image.

Found by giving indexes to Docker 20.10 and 26, containerd 1.6, podman 4.3 and 5.4 and skopeo 1.9. Sources: containerd
images/image.go (Manifest) and platforms/compare.go, moby daemon/containerd/image_manifest.go, containers/image
internal/pkg/platform/platform_matcher.go and manifest/oci_index.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def choices(images: Sequence[Node]) -> list[Choice]:
    """What engines take of ``images``, those of one index in its order; first on linux/amd64, if one is for that."""
    machines: dict[tuple[str, str], None] = {}
    for node in images:
        for said in (node.descriptor.platform, node.config.platform if node.config is not None else None):
            if said is not None:
                platform = said.normalized()
                # Which Windows image is taken depends on the build of the host as well.
                if platform.os == "linux" and platform.architecture:
                    machines.setdefault((platform.os, platform.architecture))
    order = sorted(machines, key=lambda machine: machine != (_AMD64.os, _AMD64.architecture))
    return [_on(Platform(os, architecture), images) for os, architecture in order]


def preferred(images: Sequence[Node]) -> Node:
    """The one of ``images`` to show where only one can be: what engines take on linux/amd64, else the first."""
    first = next(iter(choices(images)), None)
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
    first = next(iter(choices(images)), None)
    if first is not None and not first.agreed:
        message = f"engines on {printable(str(first.platform))} would take different images: {first.listing}"
        raise _refused(message, root)


def _refused(message: str, root: Node) -> Refused:
    hint = "platforms in the index and in the configs contradict each other: make the index again"
    return Refused("E_TYPE", message, where=str(root.descriptor.digest), hint=hint)


def _image_id(node: Node) -> Digest:
    assert node.manifest is not None
    return node.manifest.config.digest


def _on(machine: Platform, every: Sequence[Node]) -> Choice:
    # One without its config runs nowhere: it was not shipped, or is damaged, and that is said elsewhere.
    images = [node for node in every if node.config is not None]
    taken = {
        "containerd": _by_descriptor(machine, images),
        "Docker with the containerd store": _by_config(machine, images),
        "podman": _by_letter(machine, images),
    }
    return Choice(machine, {engine: node for engine, node in taken.items() if node is not None})


def _by_descriptor(machine: Platform, images: Iterable[Node]) -> Node | None:
    """containerd: the platform of the descriptor, normalised, the best first; without one that of the config, last."""
    ranked = []
    for place, node in enumerate(images):
        said = node.descriptor.platform
        rank = _rank(machine, said if said is not None else node.config.platform if node.config is not None else None)
        if rank is not None:
            ranked.append((said is None, rank, place, node))
    return min(ranked, key=lambda entry: entry[:3])[3] if ranked else None


def _by_config(machine: Platform, images: Sequence[Node]) -> Node | None:
    """Docker with the containerd store: the platform of the config, whatever the descriptor says.

    It is normalised: x86_64, another case and no system at all mean the same to it; i386 was not taken for 386. Docker 26
    takes the first that the machine runs at all, and the first of all when it runs none. Here it is the best that the
    machine runs: else the 386 of an honest index that is sorted by name would be in the way of its amd64.
    """
    ranked = []
    for place, node in enumerate(images):
        own = node.config.platform if node.config is not None else None
        if own is not None and own.architecture != "386" and own.normalized().architecture == "386":
            continue
        rank = _rank(machine, own)
        if rank is not None:
            ranked.append((rank, place, node))
    if ranked:
        return min(ranked, key=lambda entry: entry[:2])[2]
    return next((node for node in images if node.config is not None), None)


def _rank(machine: Platform, platform: Platform | None) -> int | None:
    """How good a platform is for a machine, 0 for the best; ``None`` when it does not run there."""
    one = platform.normalized() if platform is not None else None
    runs = _RUNS.get(machine.architecture, ((machine.architecture, ""),))
    if one is None or one.os != machine.os or (one.architecture, one.variant) not in runs:
        return None
    return runs.index((one.architecture, one.variant))


def _by_letter(machine: Platform, images: Sequence[Node]) -> Node | None:
    """podman, skopeo, buildah: the descriptor to the letter, never normalised; then the first without a platform."""
    for variant in _LITERAL.get(machine.architecture, ("",)):
        for node in images:
            said = node.descriptor.platform
            if said is not None and (said.os, said.architecture, said.variant) == (
                machine.os,
                machine.architecture,
                variant,
            ):
                return node
    return next((node for node in images if node.descriptor.platform is None), None)
