"""One entry of the store's ``index.json``, and reading the file: in one pass where imgtar wrote it, strictly otherwise.

An index of ten thousand images is read by every command and mostly asked for one of them. So what has exactly the
form in which imgtar writes it is taken apart as text, and an entry is looked into when somebody asks. The form leaves
nothing to understand in two ways: keys in one order, each once, no number but the size. Every other text goes to the
strict reader, whoever wrote it. An entry that nobody changes is written as the text that it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from imgtar.errors import Refused
from imgtar.graph.catalog import DeclaredParent, Root
from imgtar.graph.names import names_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_index
from imgtar.model.limits import Limits
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference

__all__ = ["PARENT", "STORE_LIMITS", "Entry", "encode_index", "parse_entries", "parse_strictly", "read_written"]

PARENT = "imgtar.parent"
"""Annotation on a root: the image ID of its parent image. Docker keeps that beside the image too, not inside."""

STORE_LIMITS = Limits(document=256 << 20, json_values=20_000_000, descriptors=2_000_000, needs=20_000_000)
"""Our own index may grow far beyond what a stranger's document may have."""


class Entry:
    """One entry: what it points at, and its name. Immutable; equal when all of it is."""

    __slots__ = ("_descriptor", "_digest", "_label", "_name", "_names", "_read", "_said", "_text")

    def __init__(self, descriptor: Descriptor, name: Reference | None, label: str = "") -> None:
        self._descriptor: Descriptor | None = descriptor
        self._digest: Digest | None = descriptor.digest
        self._name = name
        self._label = label
        self._read = True
        self._text = self._said = ""
        self._names = ("", "")

    @classmethod
    def of_text(cls, text: str, digest: str, names: tuple[str, str]) -> Entry:
        """The entry with that text, in the form in which imgtar writes it; ``names`` are its two annotations."""
        entry = cls.__new__(cls)
        entry._descriptor = entry._digest = entry._name = None
        entry._label = ""
        entry._read = False
        entry._text = text
        entry._said = digest
        entry._names = names
        return entry

    @classmethod
    def read(cls, descriptor: Descriptor) -> Entry:
        """The entry that a descriptor of the index stands for.

        imgtar writes both name annotations alike. Where they differ, umoci has copied an entry and given it another
        ``ref.name``: that is its name then.
        """
        return cls(descriptor, *_name_of(descriptor))

    @classmethod
    def make(
        cls, descriptor: Descriptor, name: Reference | None, parent: DeclaredParent | None, label: str = ""
    ) -> Entry:
        """A new entry. ``ref.name`` is the familiar name, so that ``skopeo oci:STORE:app:1`` finds it."""
        kept = {
            key: value
            for key, value in descriptor.annotations.items()
            if key not in (mediatype.CONTAINERD_NAME, mediatype.REF_NAME)
        }
        if parent is not None:
            kept[PARENT] = str(parent.image_id)
        if name is not None:
            kept[mediatype.CONTAINERD_NAME] = name.full
            kept[mediatype.REF_NAME] = name.familiar
        elif label:
            kept[mediatype.REF_NAME] = label
        return cls(descriptor.with_annotations(kept), name, label)

    def renamed(self, name: Reference | None) -> Entry:
        """The same root under another name, or under none."""
        return Entry.make(self.descriptor, name, None)

    @property
    def digest(self) -> Digest:
        """What it points at, without looking at the rest."""
        if self._digest is None:
            algorithm, _, encoded = self._said.partition(":")
            self._digest = Digest(algorithm, encoded)
        return self._digest

    @property
    def descriptor(self) -> Descriptor:
        """What it points at."""
        if self._descriptor is None:
            self._descriptor = _descriptor(json.loads(self._text))
        return self._descriptor

    @property
    def name(self) -> Reference | None:
        """Its reference, if it has one."""
        if not self._read:
            self._look()
        return self._name

    @property
    def label(self) -> str:
        """What it is called, when that is no reference."""
        if not self._read:
            self._look()
        return self._label

    def _look(self) -> None:
        self._name, self._label = _usual_name(self._names) or _name_of(self.descriptor)
        self._read = True

    @property
    def text(self) -> str:
        """Its JSON, as it stands in ``index.json``."""
        return self._text or json.dumps(self.descriptor.to_json(), separators=(",", ":"), ensure_ascii=False)

    @property
    def bare(self) -> str:
        """What it points at, as text, without its names: what the documents below say depends on nothing else here."""
        if self._names != ("", ""):
            head, _, rest = self._text.partition(',"annotations":{')
            return head + rest.partition(f'"{mediatype.REF_NAME}":"{self._names[1]}"}}')[2]
        value = self.descriptor.to_json()
        value.pop("annotations", None)
        mark = self.descriptor.annotations.get(mediatype.DOCKER_REFERENCE_TYPE)
        return _encode(value) + ("+" if mark else "")

    def noted(self, key: str) -> str | None:
        """An annotation that is neither a name nor the parent."""
        return None if self._names != ("", "") else self.descriptor.annotations.get(key)

    @property
    def parent(self) -> DeclaredParent | None:
        """The parent image that was declared when this came in."""
        text = self.descriptor.annotations.get(PARENT)
        try:
            return DeclaredParent(Digest.parse(text), "the store") if text else None
        except Refused:
            return None  # Written by another hand; what is no digest names no image.

    def root(self, references: Sequence[Reference], labels: Sequence[str]) -> Root:
        """The root for a catalog."""
        bare = {
            key: value
            for key, value in self.descriptor.annotations.items()
            if key not in (mediatype.CONTAINERD_NAME, mediatype.REF_NAME, PARENT)
        }
        return Root(self.descriptor.with_annotations(bare), tuple(labels), tuple(references), self.parent)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        if self is other or (self._text and self._text == other._text):
            return True
        return (self.digest, self.name, self.label, self.descriptor) == (
            other.digest,
            other.name,
            other.label,
            other.descriptor,
        )

    def __hash__(self) -> int:
        return hash((self.digest, self.name, self.label))

    def __repr__(self) -> str:
        return f"Entry({self.name or self.label or '-'}, {self.digest})"


def _name_of(descriptor: Descriptor) -> tuple[Reference | None, str]:
    labels, references = names_of(descriptor)
    if references and descriptor.annotations.get(mediatype.REF_NAME) == labels[0]:
        return references[0], ""  # As imgtar writes it: the second reading would say the same.
    without = {key: value for key, value in descriptor.annotations.items() if key != mediatype.CONTAINERD_NAME}
    other = names_of(descriptor.with_annotations(without))
    if other[1] and references and other[1] != references:
        labels, references = other
    return references[0] if references else None, "" if references or not labels else labels[0]


# Names on Docker Hub that have nothing special about them: Reference.parse says the same, but takes its time.
_PART = r"[a-z0-9]++(?:[._-][a-z0-9]++)*+"
_COMMON = re.compile(
    rf"docker\.io/(?!localhost/)(?P<path>(?:library|[a-z0-9]{{1,40}})/(?=[^:]{{1,60}}:)(?!sha256:|sha512:){_PART})"
    r":(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})"
)


def _usual_name(names: tuple[str, str]) -> tuple[Reference, str] | None:
    """The name of an entry both of whose annotations say it as imgtar does: that is the rule, and soon told."""
    full, familiar = names
    found = _COMMON.fullmatch(full)
    if found is not None:
        path, tag = found.groups()
        if familiar == f"{path.removeprefix('library/')}:{tag}":
            return Reference("docker.io", path, tag), ""
    try:
        reference = Reference.parse(full) if full else None
    except Refused:
        return None
    if reference is None or reference.tag is None or reference.digest is not None or reference.familiar != familiar:
        return None
    return reference, ""


def parse_entries(raw: bytes) -> list[Entry]:
    """The entries of an ``index.json``. Raises :class:`Refused` for one that is damaged."""
    written = read_written(raw)
    return parse_strictly(raw) if written is None else written


def parse_strictly(raw: bytes) -> list[Entry]:
    """The same, for an index that is not known to have imgtar's own form."""
    return [Entry.read(descriptor) for descriptor in parse_index(raw, "", "index.json", STORE_LIMITS).manifests]


# -- the form in which imgtar writes it

_PLAIN = r'"[^"\\\x00-\x1f]*+"'
_CHARACTERS = r'(?:[^"\\\x00-\x1f]++|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f])))'
_STRING = rf'"{_CHARACTERS}*+"'
_SOME = rf'"{_CHARACTERS}++"'  # What is empty is not written.
_PLATFORM = (
    rf'\{{"architecture":{_STRING},"os":{_STRING}(?:,"os\.version":{_SOME})?'
    rf'(?:,"os\.features":\[{_STRING}(?:,{_STRING})*+\])?(?:,"variant":{_SOME})?\}}'
)
_USUAL = (
    rf'\{{(?:"imgtar\.parent":{_PLAIN},)?"io\.containerd\.image\.name":"([^"\\\x00-\x1f]*+)",'
    r'"org\.opencontainers\.image\.ref\.name":"([^"\\\x00-\x1f]*+)"\}'
)
_ENTRY = re.compile(
    rf'\{{"mediaType":{_PLAIN},"digest":"(sha256:[0-9a-f]{{64}}|sha512:[0-9a-f]{{128}})",'
    r'"size":(?:0|[1-9][0-9]{0,17})'
    rf'(?:,"annotations":(?:{_USUAL}|(\{{{_PLAIN}:{_STRING}(?:,{_PLAIN}:{_STRING})*+\}})))?'
    rf'(?:,"platform":{_PLATFORM})?(?:,"artifactType":{_SOME})?\}}([,\]])'
)
_decode = json.JSONDecoder().decode
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_HEAD: dict[str, Any] = {"schemaVersion": 2, "mediaType": mediatype.IMAGE_INDEX}
_LIST = ',"manifests":['


def encode_index(entries: Sequence[Entry], foreign: dict[str, Any]) -> bytes:
    """The bytes of ``index.json``, with the members that others have written beside the list."""
    return "".join(
        (_encode({**_HEAD, **foreign})[:-1], _LIST, ",".join([entry.text for entry in entries]), "]}")
    ).encode()


_START = _encode(_HEAD)[:-1] + _LIST


def read_written(raw: bytes) -> list[Entry] | None:
    """The entries of an index that has exactly the form of :func:`encode_index`, with nothing foreign; else ``None``."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(raw) > STORE_LIMITS.document or sum(map(raw.count, (b",", b"[", b"{"))) > STORE_LIMITS.json_values:
        return None  # Whether it is too large the strict reader decides.
    if not text.startswith(_START):
        return None
    at, entries, match, end = len(_START), [], _ENTRY.match, "]" if text.endswith("[]}") else ","
    if end == "]":
        return [] if text == f"{_START}]}}" else None
    while end == ",":
        found = match(text, at)
        if found is None:
            return None
        digest, full, familiar, others, end = found.groups()
        if others is not None and not _as_written(others):
            return None
        stop = found.end()
        entries.append(Entry.of_text(text[at : stop - 1], digest, (full or "", familiar or "")))
        at = stop
    return entries if text[at:] == "}" and len(entries) <= STORE_LIMITS.descriptors else None


def _as_written(annotations: str) -> bool:
    """Whether annotations have their keys in order, each once, and none beside another that differs only in case."""
    value = _decode(annotations)
    keys = list(value)
    return keys == sorted(keys) and len({key.lower() for key in keys}) == len(keys) and _encode(value) == annotations


def _descriptor(value: dict[str, Any]) -> Descriptor:
    platform = value.get("platform")
    return Descriptor(
        value["mediaType"],
        Digest(*value["digest"].split(":")),
        value["size"],
        None
        if platform is None
        else Platform(
            platform["os"],
            platform["architecture"],
            platform.get("variant", ""),
            platform.get("os.version", ""),
            tuple(platform.get("os.features", ())),
        ),
        value.get("annotations", {}),
        value.get("artifactType", ""),
    )
