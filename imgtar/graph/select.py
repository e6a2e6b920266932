"""Which of the things on offer are meant, and under which names they will be known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from imgtar.errors import NotFound, Refused, UsageError
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import DeclaredParent, Root, smaller_parent
from imgtar.graph.finding import Finding
from imgtar.graph.walk import Node, images_of, nodes_of
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference, parse_user_reference
from imgtar.text import printable, shown

__all__ = [
    "REFERRERS_TAG",
    "Candidate",
    "Policy",
    "identities",
    "is_called",
    "matches_identity",
    "one_of_each",
    "rename",
    "select",
    "subject_of",
    "subjects_asked_for",
    "with_platforms",
]

_ID = re.compile(r"(?:(?:sha256|sha512):)?[0-9a-f]{4,128}", re.ASCII)
_BARE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
REFERRERS_TAG = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.[a-z]+)?", re.ASCII)
"""Tags that hold the referrers of an image (distribution-spec, referrers tag schema; cosign's .sig, .att, .sbom)."""


@frozen
class Policy:
    """What the caller asked for. ``renames`` are (old or ``None``, new) as written on the command line.

    ``every_name`` says that each image on offer was asked for by name, so that none may be left out in silence.
    ``every_form`` keeps an image that comes with its layers in several forms in all of them: where the content of an
    archive is judged, not a load planned. ``require_base`` makes base annotations count as declared parents. ``partial`` leaves incomplete images behind
    instead of refusing all. ``remake`` says when a plain layer may be made from a compressed one with the same diff ID:
    ``last``, when nobody carries it; ``first``, before it is carried, because this plan decides what to carry;
    ``never``, where its absence is damage.
    """

    select: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    renames: tuple[tuple[str | None, str], ...] = ()
    parents: Literal["require", "warn", "ignore"] = "require"
    no_clobber: bool = False
    every_name: bool = False
    every_form: bool = False
    require_base: bool = False
    partial: bool = False
    remake: Literal["first", "last", "never"] = "last"


@frozen
class Candidate:
    """A root with its node and the catalog (by position) that brought it."""

    root: Root
    node: Node
    position: int


def identities(candidate: Candidate) -> set[Digest]:
    """Every digest by which people may ask for it: its own, and the image ID of a single image."""
    found = {candidate.node.descriptor.digest}
    manifest = candidate.node.manifest
    if manifest is not None and candidate.node.is_image:
        found.add(manifest.config.digest)
    return found


def matches_identity(wanted: str, digests: Iterable[Digest]) -> bool:
    """Whether ``wanted``, an ID or a prefix of one, means one of ``digests``."""
    if not _ID.fullmatch(wanted):
        return False
    prefix = wanted.partition(":")[2] or wanted
    return any(digest.encoded.startswith(prefix) for digest in digests)


def is_called(root: Root, text: str) -> bool:
    """Whether ``text`` means ``root`` by a name, or by the image ID of its draft, or by the v1 ID when that is all it has."""
    if text in root.labels or (root.draft is not None and matches_identity(text, [root.draft.config.digest])):
        return True
    if root.cut and (text == root.v1_id or matches_identity(text, [Digest("sha256", root.v1_id)])):
        return True
    try:
        asked = Reference.parse(text)
    except Refused:
        return False
    return any(one.repository == asked.repository and asked.tag in (None, one.tag) for one in root.references)


def select(candidates: Sequence[Candidate], wanted: Sequence[str]) -> list[Candidate]:
    """Return the candidates that ``wanted`` (names, repositories, IDs) means, names reduced to the wanted ones.

    Everything, when nothing is named. A name without a tag means all tags of that repository, as in ``docker save``;
    an ID or digest, or a prefix, means the image without its names. Referrers (artifacts with a subject) come along
    with what they refer to. Raises :class:`NotFound` with what there is, :class:`UsageError` for an ambiguous prefix.
    """
    if not wanted:
        return list(candidates)
    chosen: dict[int, Candidate] = {}
    names: dict[int, list[Reference]] = {}
    called = _Names(candidates)
    for text in wanted:
        hits = called.hits(text)
        if not hits:
            hits = [(place, ()) for place in _by_identity(candidates, text)]
        if not hits:
            if not _ID.fullmatch(text):
                parse_user_reference(text)  # What is no name at all is a usage error, not something absent.
            named = {one.root.title for one in candidates if one.root.references}
            there = sorted(named or {one.root.title for one in candidates if one.node.is_image or one.node.index})
            listing = ", ".join(printable(name) for name in there[:20]) or "no images"
            raise NotFound(f"no image {shown(text)}", hint=f"there is: {listing}")
        for place, references in hits:
            chosen[place] = candidates[place]
            names.setdefault(place, []).extend(reference for reference in references if reference not in names[place])
    reachable = {node.descriptor.digest for one in chosen.values() for node in nodes_of(one.node)}
    growing = True
    while growing:
        growing = False
        for place, one in enumerate(candidates):
            if place in chosen or one.node.fault is not None:
                continue
            if (subject := subject_of(one)) is not None and subject in reachable:
                chosen[place], names[place], growing = one, list(one.root.references), True
                reachable |= {node.descriptor.digest for node in nodes_of(one.node)}
    return [
        replace(one, root=replace(one.root, references=tuple(names[place]))) for place, one in sorted(chosen.items())
    ]


def _by_identity(candidates: Sequence[Candidate], text: str) -> list[int]:
    """The one candidate that an ID or a prefix of one means.

    One image ID may stand behind several manifests (the same image in another compression): a named one is taken,
    else the one with the smallest digest. Raises :class:`UsageError` when several IDs begin like that.
    """
    meant: dict[Digest, list[int]] = {}
    for place, one in enumerate(candidates):
        for identity in identities(one):
            if matches_identity(text, [identity]):
                meant.setdefault(identity, []).append(place)
    places = {place for found in meant.values() for place in found}
    # A manifest and its config may both begin like that; that is one image all the same.
    if len(meant) > 1 and len(places) > 1:
        raise UsageError(f"{shown(text)} means more than one image", hint="give more digits, or a name")
    order = sorted(
        places, key=lambda at: (not candidates[at].root.references, str(candidates[at].node.descriptor.digest))
    )
    return order[:1]


def with_platforms(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, and after them every image inside an index as one of its own, nameless: it has an ID too."""
    known = {one.node.descriptor.digest for one in candidates}
    result = list(candidates)
    for one in candidates:
        if one.node.index is None:
            continue
        for node in images_of(one.node):
            if node.descriptor.digest not in known:
                known.add(node.descriptor.digest)
                result.append(Candidate(Root(node.descriptor), node, one.position))
    return result


def subject_of(candidate: Candidate) -> Digest | None:
    """What an artifact refers to: its ``subject``, containerd's annotation, or the digest in a referrers tag."""
    node = candidate.node
    document = node.manifest or node.index
    if document is not None and document.subject is not None:
        return document.subject.digest
    # What its own entry says: an index that lists it too may say something else, and who is looked at first must not matter.
    said = candidate.root.descriptor or node.descriptor
    mark = said.annotations.get("io.containerd.manifest.subject")
    if mark is None:
        for label in candidate.root.labels:
            if REFERRERS_TAG.fullmatch(label):
                mark = label.partition(".")[0].replace("-", ":", 1)
    try:
        return Digest.parse(mark) if mark else None
    except Refused:
        return None  # An annotation is free text: one that is no digest refers to nothing.


def subjects_asked_for(chosen: Sequence[Candidate], candidates: Sequence[Candidate]) -> list[Candidate]:
    """What artifacts that were asked for by themselves are about, and what those are about, where it is on offer.

    It comes along, nameless.
    """
    there = {node.descriptor.digest for one in chosen for node in nodes_of(one.node) if not node.absent}
    homes: dict[Digest, Candidate] = {}
    for other in candidates:
        for node in nodes_of(other.node):
            if not node.absent:
                homes.setdefault(node.descriptor.digest, other)
    found: list[Candidate] = []
    queue = list(chosen)
    for one in queue:
        subject = subject_of(one)
        home = homes.get(subject) if subject is not None and subject not in there else None
        if home is not None:
            nameless = replace(home, root=replace(home.root, references=()))
            found.append(nameless)
            queue.append(nameless)
            there |= {node.descriptor.digest for node in nodes_of(home.node) if not node.absent}
    return found


def one_of_each(
    chosen: Sequence[Candidate], lack: Callable[[Candidate], tuple[int, int]]
) -> tuple[list[Candidate], list[Finding]]:
    """Keep one manifest for each name when several archives bring one image with its layers in several forms.

    It is the same image, as its ID says. ``lack`` counts the gaps of a form, and the bytes that it would write: the
    least counts, of equals the smaller digest, so that the order of the archives does not. The parent that any form
    declares is that of the image. A form that an artifact is about stays, without the name.
    """
    forms: dict[tuple[Reference, Digest], dict[Digest, list[int]]] = {}
    for place, one in enumerate(chosen):
        manifest = one.node.manifest
        if one.node.is_image and manifest is not None:
            for reference in one.root.references:
                known = forms.setdefault((reference, manifest.config.digest), {})
                known.setdefault(one.node.descriptor.digest, []).append(place)
    loses: dict[Digest, set[Reference]] = {}
    parents: dict[Digest, DeclaredParent] = {}
    findings = []
    for (reference, _), places in forms.items():
        if len(places) < 2:
            continue
        ranked = sorted(places, key=lambda digest: (lack(chosen[places[digest][0]]), str(digest)))
        for digest in ranked[1:]:
            loses.setdefault(digest, set()).add(reference)
        # Of one form, too, one archive may declare a parent and another none.
        for place in (place for digest in ranked for place in places[digest]):
            parent = smaller_parent(parents.get(ranked[0]), chosen[place].root.parent)
            if parent is not None:
                parents[ranked[0]] = parent
        message = f"{reference.familiar} comes in {len(ranked)} forms of one image; manifest {ranked[0]} is taken"
        findings.append(Finding("E_NAME", "info", reference.familiar, message))
    subjects = {subject_of(one) for one in chosen} if loses else set()
    kept = []
    for one in chosen:
        digest = one.node.descriptor.digest
        left = tuple(reference for reference in one.root.references if reference not in loses.get(digest, ()))
        if left or not one.root.references or digest in subjects:
            parent = parents.get(digest, one.root.parent)
            kept.append(replace(one, root=replace(one.root, references=left, parent=parent)))
    return kept, findings


class _Names:
    """Candidates by what they are called: so that a thousand names among a thousand images are soon found."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._places: dict[str, list[int]] = {}
        for place, one in enumerate(candidates):
            words = {reference.repository for reference in one.root.references}
            for word in words or set(one.root.labels):
                self._places.setdefault(word, []).append(place)

    def hits(self, text: str) -> list[tuple[int, tuple[Reference, ...]]]:
        """The places of what ``text``, a name, may mean, each with those of its names that are meant."""
        try:
            asked = Reference.parse(text)
        except Refused:
            asked = None
        places = {*self._places.get(text, ()), *(self._places.get(asked.repository, ()) if asked is not None else ())}
        result: list[tuple[int, tuple[Reference, ...]]] = []
        for place in sorted(places):
            one = self._candidates[place]
            mine = [] if asked is None else [r for r in one.root.references if r.repository == asked.repository]
            found = tuple(r for r in mine if asked is not None and asked.tag in (None, r.tag))
            if asked is not None and asked.digest is not None:
                if asked.digest not in identities(one):
                    continue
                if mine and not found and asked.tag is None:
                    result.append((place, ()))
            if found or (text in one.root.labels and not one.root.references):
                result.append((place, found))
        return result


def rename(candidates: Sequence[Candidate], renames: Sequence[tuple[str | None, str]]) -> list[Candidate]:
    """Apply ``--tag OLD=NEW`` and ``--tag NEW``. Raises :class:`NotFound` when OLD is not there."""
    result = list(candidates)
    for old, new in renames:
        target = parse_user_reference(new)
        if target.digest is not None:
            raise UsageError(f"{shown(new)} has a digest, a tag cannot", hint="write NAME:TAG")
        if old is None:
            images = [place for place, one in enumerate(result) if one.node.index or any(images_of(one.node))]
            images = [place for place in images if subject_of(result[place]) is None]
            if len(images) != 1:
                message = f"--tag {printable(new)} needs exactly one image, there are {len(images)}"
                raise UsageError(message, hint="say which: --tag OLD=NEW (a name or an image ID)")
            place, dropped = images[0], None
        else:
            place, dropped = _find_old(result, old)
        result[place] = _with_name(result[place], dropped, target)
    return result


def _find_old(candidates: Sequence[Candidate], old: str) -> tuple[int, Reference | None]:
    try:
        asked: Reference | None = Reference.parse(old).tagged()
    except Refused:
        asked = None
    for place, one in enumerate(candidates):
        if asked is not None and asked in one.root.references:
            return place, asked
    for place, one in enumerate(candidates):
        bare = not one.root.references
        if bare and (old in one.root.labels or (asked is not None and asked.tag in one.root.labels)):
            return place, None
    for place, one in enumerate(candidates):
        if matches_identity(old, identities(one)):
            return place, None
    there = ", ".join(printable(one.root.title) for one in candidates[:20])
    raise NotFound(f"--tag: no image {shown(old)}", hint=f"there is: {there or 'no image'}")


def _with_name(candidate: Candidate, dropped: Reference | None, target: Reference) -> Candidate:
    root = candidate.root
    if target.tag is None:
        labels = [label for label in root.labels if _BARE_TAG.fullmatch(label)]
        tag = dropped.tag if dropped else labels[0] if len(labels) == 1 and not root.references else "latest"
        target = replace(target, tag=tag)
    kept = tuple(reference for reference in root.references if reference not in (dropped, target))
    return replace(candidate, root=replace(root, references=(*kept, target)))
