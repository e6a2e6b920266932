"""Archives from before Docker 1.10: ``repositories`` and ``<id>/{VERSION,json,layer.tar}`` with a parent chain.

Docker 29 no longer reads them. They are converted as Docker 1.10-28 did (moby v24.0.9 image/tarexport/load.go
legacyLoad, image/v1/imagev1.go MakeConfigFromV1Config), to the byte, so that the image ID is the one Docker gave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from imgtar.errors import DependencyMissing, Refused
from imgtar.graph.catalog import Draft, Root, Slot
from imgtar.graph.explain import explain_missing
from imgtar.graph.finding import Finding
from imgtar.graph.library import Library
from imgtar.graph.plan import GapKind, Missing
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_config, parse_repositories, parse_time
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.model.strictjson import parse_json
from imgtar.text import shown
from imgtar.transport.docker_view import layer_descriptor
from imgtar.transport.members import Members

__all__ = ["is_legacy", "read_legacy"]

_JSON = re.compile(r"([^/]+)/json")
_SKIPPED = frozenset(("id", "parent", "Size", "parent_id", "layer_id", "throwaway"))


def is_legacy(members: Members) -> bool:
    """Whether this looks like an archive of that form."""
    return any(_JSON.fullmatch(name) and f"{name[:-5]}/layer.tar" in _layers(members) for name in members.files)


def _layers(members: Members) -> set[str]:
    return {*members.files, *members.links}


def read_legacy(
    members: Members, library: Library, limits: Limits = DEFAULT_LIMITS
) -> tuple[list[Root], dict[Digest, str], list[Finding]]:
    """Return the images: one root for each tagged ID, and for each ID that is nobody's parent.

    Reads every layer, because a config of today names the layers' diff IDs. Raises :class:`Refused` (``E_GRAPH``) for a
    parent chain that loops, :class:`DependencyMissing` for one that is cut.
    """
    images: dict[str, tuple[bytes, dict[str, Any]]] = {}
    for name in members.files:
        match = _JSON.fullmatch(name)
        if match is not None:
            where = f"{members.label}: {name}"
            raw = members.read(name, limits.config)
            value = parse_json(raw, where, limit=limits.config, limits=limits)
            if not isinstance(value, dict):
                raise Refused("E_JSON", "is not a JSON object", where=where)
            _as_spelled(value, _V1_NAMES, where)
            for part in ("config", "container_config"):
                if isinstance(value.get(part), dict):
                    _as_spelled(value[part], _CONFIG_NAMES, where)
            images[match[1]] = (raw, value)
    tags, findings = _tags(members, images, limits)
    parents = {str(value.get("parent")) for _, value in images.values() if value.get("parent")}
    heads = set(images) - parents
    names: dict[Digest, str] = {}
    roots = []
    done: dict[str, _Converted] = {}
    for identity in sorted({*tags, *heads}):
        converted = None
        for member in _chain(identity, images, members.label, limits):
            if member not in done:
                done[member] = _convert(member, images[member], converted, members, names)
            converted = done[member]
        assert converted is not None
        config = Descriptor(mediatype.IMAGE_CONFIG, Digest.of(converted.raw), len(converted.raw))
        library.add(config.digest, converted.raw)
        parsed = parse_config(converted.raw, f"{members.label}: {identity}", limits)
        references = tuple(tags.get(identity, ()))
        labels = tuple(reference.familiar for reference in references)
        roots.append(Root(None, labels, references, None, Draft(config, parsed, tuple(converted.slots))))
    if left := sorted(set(images) - set(done)):
        # Nobody's child and nobody's parent at once cannot be: these go round in a circle that nothing leads into.
        raise Refused("E_GRAPH", "the parent chain loops", where=f"{members.label}: {left[0][:64]}/json")
    return roots, names, findings


def _as_spelled(value: dict[str, Any], names: dict[str, str], where: str) -> None:
    """Refuse a key in another case: Go would take it, and the ID would depend on who converts."""
    for key in value:
        if names.get(key.lower(), key) != key:
            raise Refused("E_JSON", f"has the key {shown(key)} for {names[key.lower()]}", where=where)


def _tags(
    members: Members, images: dict[str, tuple[bytes, dict[str, Any]]], limits: Limits
) -> tuple[dict[str, list[Reference]], list[Finding]]:
    tags: dict[str, list[Reference]] = {}
    if "repositories" not in members.files:
        message = "there is no repositories file: the images have no names"
        return tags, [Finding("E_NAME", "warning", members.label, message)]
    where = f"{members.label}: repositories"
    for repository, entries in parse_repositories(members.read("repositories", limits.document), where, limits).items():
        for tag, identity in entries.items():
            if identity not in images:
                raise Refused(
                    "E_GRAPH", f"{shown(f'{repository}:{tag}')} names the unknown ID {shown(identity)}", where=where
                )
            tags.setdefault(identity, []).append(Reference.parse(f"{repository}:{tag}"))
    return tags, []


def _chain(identity: str, images: dict[str, tuple[bytes, dict[str, Any]]], label: str, limits: Limits) -> list[str]:
    """The IDs from the bottom of the parent chain up to ``identity``."""
    chain: list[str] = []
    seen: set[str] = set()
    current = identity
    while current:
        where = f"{label}: {current[:64]}/json"
        if current in seen:
            raise Refused("E_GRAPH", "the parent chain loops", where=where)
        if len(chain) >= limits.layers_per_image:
            raise Refused("E_LIMIT", f"the parent chain is longer than {limits.layers_per_image}", where=where)
        if current not in images:
            raise _cut("parent", current, chain[-1], f"{label}: {current[:64]}/json")
        seen.add(current)
        chain.append(current)
        parent = images[current][1].get("parent")
        if parent is not None and not isinstance(parent, str):
            raise Refused("E_JSON", "parent is not a text", where=where)
        current = parent or ""
    return chain[::-1]


def _cut(kind: GapKind, what: str, needed_by: str, expected: str) -> DependencyMissing:
    hint = f"a pre-1.10 archive must hold its whole parent chain, {shown(what)} too: save the image again"
    digest = Digest("sha256", what) if re.fullmatch("[0-9a-f]{64}", what) else None
    return explain_missing([Missing(kind, digest, None, None, (needed_by,), expected, "absent", hint)])


class _Converted:
    """A v1 image as a config of today, with the layers up to it."""

    def __init__(self, raw: bytes, slots: list[Slot], history: list[str]) -> None:
        self.raw = raw
        self.slots = slots
        self.history = history


def _convert(
    identity: str,
    image: tuple[bytes, dict[str, Any]],
    parent: _Converted | None,
    members: Members,
    names: dict[Digest, str],
) -> _Converted:
    raw, value = image
    path = f"{identity}/layer.tar"
    name = path if path in members.files else members.links.get(path)
    if name is None:
        raise _cut("layer", path, identity, f"{members.label}: {path[:80]}")
    measured = members.known(name) or members.measured(name)
    if measured.fault is not None:
        raise measured.fault
    assert measured.diff_id is not None
    layer = layer_descriptor(members, name, measured.diff_id)
    names.setdefault(layer.digest, name)
    slots = [*(parent.slots if parent else ()), Slot(measured.diff_id, layer, f"{members.label}: {path}")]
    history = [*(parent.history if parent else ()), _history(value, f"{members.label}: {identity}/json")]
    if _older_than_1_8_3(value.get("docker_version")):
        raw = _through_v1_struct(value)
    fields = {key: text for key, text in _raw_fields(raw.decode("utf-8")) if key not in _SKIPPED}
    diff_ids = ",".join(f'"{slot.diff_id}"' for slot in slots)
    fields["rootfs"] = f'{{"type":"layers","diff_ids":[{diff_ids}]}}'
    fields["history"] = f"[{','.join(history)}]"
    body = ",".join(f"{_go_string(key)}:{fields[key]}" for key in sorted(fields, key=lambda key: key.encode()))
    return _Converted(f"{{{body}}}".encode(), slots, history)


def _history(value: dict[str, Any], where: str) -> str:
    """One history entry as Go writes it (moby image.History: created, author, created_by, comment)."""
    config = value.get("container_config")
    command = config.get("Cmd") if isinstance(config, dict) else None
    if command is None:
        command = []
    if isinstance(command, str):
        command = [command]
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        raise Refused("E_JSON", "container_config.Cmd is not a list of texts", where=where)
    created = value.get("created") or "0001-01-01T00:00:00Z"
    if not isinstance(created, str) or parse_time(created) is None:
        raise Refused("E_JSON", f"created is not a time: {shown(str(created))}", where=where)
    parts = [f'"created":{_go_string(_go_time(created))}']
    for key, text in (
        ("author", value.get("author")),
        ("created_by", " ".join(command)),
        ("comment", value.get("comment")),
    ):
        if text:
            parts.append(f'"{key}":{_go_string(str(text))}')
    return f"{{{','.join(parts)}}}"


def _go_time(text: str) -> str:
    """RFC 3339 with nanoseconds as Go prints it: no trailing zeros in the fraction, Z for UTC."""
    match = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return text
    fraction = (match[2] or "")[:9].rstrip("0")
    zone = "Z" if match[3] in ("Z", "+00:00", "-00:00") else match[3]
    return f"{match[1]}{'.' + fraction if fraction else ''}{zone}"


def _older_than_1_8_3(version: object) -> bool:
    """Docker passed the JSON of clients before 1.8.3, or of unknown ones, through its V1 struct: that drops unknowns.

    A part that is no number counts as 0, so that 1.8.3-rc1 is older (moby api/types/versions/compare.go).
    """
    parts = version.split(".") if isinstance(version, str) else []
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
    return [*numbers, 0, 0, 0][:3] < [1, 8, 3]


_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029", "\x7f": "\x7f"}
_GO_PATTERN = re.compile("[<>&\u2028\u2029]")


def _go_string(text: str) -> str:
    """A JSON string as Go's encoder writes it: ``<``, ``>``, ``&`` and two line separators are escaped."""
    # Go writes \b and \f as \u0008 and \u000c before 1.22; Docker up to 24 was built with those.
    encoded = json.dumps(text, ensure_ascii=False).replace("\\b", "\\u0008").replace("\\f", "\\u000c")
    return _GO_PATTERN.sub(lambda match: _GO_ESCAPES[match[0]], encoded)


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+|[^" \t\r\n]+')


def _compact(text: str) -> str:
    """Go's ``json.Compact`` with escaping: white space goes, strings stay as they were written but for HTML characters."""
    return _GO_PATTERN.sub(
        lambda match: _GO_ESCAPES[match[0]],
        "".join(token for token in _TOKEN.findall(text) if token[0] == '"' or not token.isspace()),
    )


def _raw_fields(text: str) -> Iterator[tuple[str, str]]:
    """The top-level fields of a JSON object that was parsed before, values as they stand, compacted."""
    decoder = json.JSONDecoder()
    space = re.compile(r"[ \t\r\n]*")

    def skip(position: int) -> int:
        match = space.match(text, position)
        assert match is not None
        return match.end()

    position = skip(skip(0) + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        position = skip(skip(position) + 1)
        _, end = decoder.raw_decode(text, position)
        yield key, _compact(text[position:end])
        position = skip(end)
        if text[position] == ",":
            position = skip(position + 1)


# Field order of moby's V1Image and container.Config structs; the flag says whether an empty value is left out.
_V1_FIELDS = (
    ("comment", True), ("created", False), ("container", True), ("container_config", True), ("docker_version", True),
    ("author", True), ("config", True), ("architecture", True), ("variant", True), ("os", True),
)  # fmt: skip
_CONFIG_FIELDS: tuple[tuple[str, bool, Any], ...] = (
    ("Hostname", False, ""), ("Domainname", False, ""), ("User", False, ""), ("AttachStdin", False, False),
    ("AttachStdout", False, False), ("AttachStderr", False, False), ("ExposedPorts", True, None), ("Tty", False, False),
    ("OpenStdin", False, False), ("StdinOnce", False, False), ("Env", False, None), ("Cmd", False, None),
    ("Healthcheck", True, None), ("ArgsEscaped", True, False), ("Image", False, ""), ("Volumes", False, None),
    ("WorkingDir", False, ""), ("Entrypoint", False, None), ("NetworkDisabled", True, False), ("MacAddress", True, ""),
    ("OnBuild", False, None), ("Labels", False, None), ("StopSignal", True, ""), ("StopTimeout", True, None),
    ("Shell", True, None),
)  # fmt: skip


_V1_NAMES = {name.lower(): name for name in (*_SKIPPED, *(name for name, _ in _V1_FIELDS))}
_CONFIG_NAMES = {name.lower(): name for name, _, _ in _CONFIG_FIELDS}


def _through_v1_struct(value: dict[str, Any]) -> bytes:
    """What Go makes of the JSON when it is decoded into the V1 struct and encoded again."""
    parts = []
    for key, optional in _V1_FIELDS:
        item = value.get(key)
        if key == "created":
            parts.append(f'"created":{_go_string(_go_time(item or "0001-01-01T00:00:00Z"))}')
        elif key in ("config", "container_config"):
            if isinstance(item, dict):
                parts.append(f'"{key}":{_go_config(item)}')
            elif key == "container_config":
                parts.append(f'"{key}":{_go_config({})}')
        elif item or not optional:
            parts.append(f'"{key}":{_go_string(str(item))}')
    return f"{{{','.join(parts)}}}".encode()


def _go_config(value: dict[str, Any]) -> str:
    parts = []
    for key, optional, default in _CONFIG_FIELDS:
        item = value.get(key, default)
        if item is None or item in ("", False) or item == [] or item == {}:
            if optional:
                continue
            item = default if item is None or item in ("", False) else item
        if key in ("Cmd", "Entrypoint", "Shell") and isinstance(item, str):
            item = [item]
        parts.append(f'"{key}":{_go_value(item)}')
    return f"{{{','.join(parts)}}}"


def _go_value(value: Any) -> str:
    if isinstance(value, str):
        return _go_string(value)
    if isinstance(value, dict):
        # Go sorts the keys of maps by their bytes.
        inner = (f"{_go_string(key)}:{_go_value(value[key])}" for key in sorted(value, key=lambda key: key.encode()))
        return f"{{{','.join(inner)}}}"
    if isinstance(value, list):
        return f"[{','.join(_go_value(item) for item in value)}]"
    return json.dumps(value)
