"""Images as Docker kept them before 1.10, each with a ``parent``, and what becomes of them today. Pure text work.

They are converted as Docker 1.10-28 did (moby v24.0.9 image/tarexport/load.go legacyLoad, image/v1/imagev1.go
MakeConfigFromV1Config), to the byte, so that the image ID is the one Docker gave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imgtar.errors import Refused
from imgtar.frozen import field, frozen
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_time
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.strictjson import fold, parse_json
from imgtar.text import shown

__all__ = ["Chains", "Step", "V1Image", "convert", "parse_v1"]

_SKIPPED = frozenset(("id", "parent", "Size", "parent_id", "layer_id", "throwaway"))


@frozen
class V1Image:
    """One image of a pre-1.10 archive: ``<identity>/json`` of the archive ``label``, to the byte and parsed.

    ``layer`` and ``diff_id`` say what ``<identity>/layer.tar`` is; both are ``None`` when the archive does not hold it.
    ``history`` is the entry for the config of today.
    """

    identity: str
    label: str
    raw: bytes = field(repr=False)
    value: Mapping[str, Any] = field(repr=False)
    history: str = field(repr=False)
    diff_id: Digest | None = None
    layer: Descriptor | None = None

    @property
    def parent(self) -> str:
        """The ID of the image below, empty for the lowest one."""
        return self.value.get("parent") or ""

    @property
    def where(self) -> str:
        """The place of the JSON, for messages."""
        return f"{self.label}: {self.identity[:64]}/json"


def parse_v1(identity: str, label: str, raw: bytes, limits: Limits = DEFAULT_LIMITS) -> V1Image:
    """Read the JSON of one image. Raises ``E_JSON`` for what Docker could not convert, or not without doubt."""
    where = f"{label}: {identity}/json"
    value = parse_json(raw, where, limit=limits.config, limits=limits)
    if not isinstance(value, dict):
        raise Refused("E_JSON", "is not a JSON object", where=where)
    _as_spelled(value, _V1_NAMES, where)
    for part in ("config", "container_config"):
        if isinstance(value.get(part), dict):
            _as_spelled(value[part], _CONFIG_NAMES, where)
            if isinstance(value[part].get("Healthcheck"), dict):
                _as_spelled(value[part]["Healthcheck"], _HEALTH_NAMES, where)
    if not isinstance(value.get("parent"), str | None):
        raise Refused("E_JSON", "parent is not a text", where=where)
    return V1Image(identity, label, raw, value, _history(value, where))


def _as_spelled(value: dict[str, Any], names: dict[str, str], where: str) -> None:
    """Refuse a key in another case: Go would take it, and the ID would depend on who converts."""
    for key in value:
        if names.get(fold(key), key) != key:
            raise Refused("E_JSON", f"has the key {shown(key)} for {names[fold(key)]}", where=where)


@frozen
class Step:
    """An image with what it stands on. ``whole`` means: down to an image without a parent, every layer is there."""

    image: V1Image
    below: Step | None = field(repr=False)
    height: int
    whole: bool

    __eq__ = object.__eq__  # By identity: a chain may be long.
    __hash__ = object.__hash__

    def down(self) -> Iterator[Step]:
        """The steps from this one to the lowest that is known."""
        step: Step | None = self
        while step is not None:
            yield step
            step = step.below


class Chains:
    """Follows ``parent`` from image to image, each image once however many stand on it; ``find`` looks one up."""

    def __init__(self, find: Callable[[str], V1Image | None], limits: Limits = DEFAULT_LIMITS) -> None:
        self._find = find
        self._limits = limits
        self._steps: dict[str, Step] = {}

    def __contains__(self, identity: str) -> bool:
        """Whether some chain that was asked for goes through this image."""
        return identity in self._steps

    def up_to(self, image: V1Image) -> Step:
        """The chain below ``image``, as far as it is known.

        Raises ``E_GRAPH`` for a chain that loops, ``E_LIMIT`` for one that is longer than an image may have layers.
        """
        most = self._limits.layers_per_image
        walked: list[V1Image] = []
        seen: set[str] = set()
        current: V1Image | None = image
        below: Step | None = None
        while current is not None:
            below = self._steps.get(current.identity)
            if below is not None:
                break
            if current.identity in seen:
                raise Refused("E_GRAPH", "the parent chain loops", where=current.where)
            seen.add(current.identity)
            walked.append(current)
            if len(walked) >= most and current.parent:
                break
            current = self._find(current.parent) if current.parent else None
        height = (below.height if below is not None else 0) + len(walked)
        if height > most or (below is None and len(walked) == most and walked[-1].parent):
            raise Refused("E_LIMIT", f"the parent chain is longer than {most}", where=walked[-1].where)
        for one in reversed(walked):
            standing = below.whole if below is not None else not one.parent
            below = Step(one, below, (below.height if below is not None else 0) + 1, standing and one.layer is not None)
            self._steps[one.identity] = below
        assert below is not None
        return below


def convert(top: Step) -> bytes:
    """The config of today for the image at the ``top`` of a whole chain."""
    steps = list(top.down())[::-1]
    raw, value = top.image.raw, top.image.value
    if _older_than_1_8_3(value.get("docker_version")):
        raw = _through_v1_struct(value)
    fields = {key: text for key, text in _raw_fields(raw.decode("utf-8")) if key not in _SKIPPED}
    diff_ids = ",".join(f'"{step.image.diff_id}"' for step in steps)
    fields["rootfs"] = f'{{"type":"layers","diff_ids":[{diff_ids}]}}'
    fields["history"] = f"[{','.join(step.image.history for step in steps)}]"
    body = ",".join(f"{_go_string(key)}:{fields[key]}" for key in sorted(fields, key=lambda key: key.encode()))
    return f"{{{body}}}".encode()


def _history(value: Mapping[str, Any], where: str) -> str:
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


_V1_NAMES = {
    fold(name): name for name in (*_SKIPPED, *(name for name, _ in _V1_FIELDS), "rootfs", "history", "os.version")
}
_CONFIG_NAMES = {fold(name): name for name, _, _ in _CONFIG_FIELDS}
_HEALTH_NAMES = {
    fold(name): name for name in ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
}


def _through_v1_struct(value: Mapping[str, Any]) -> bytes:
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
        item = _as_typed(key, value.get(key, default))
        if key in _POINTERS and item is not None:
            parts.append(f'"{key}":{_go_health(item) if isinstance(item, dict) else _go_value(item)}')
            continue
        if item is None or item in ("", False) or item == [] or item == {}:
            if optional:
                continue
            item = default if item is None or item in ("", False) else item
        if key in ("Cmd", "Entrypoint", "Shell") and isinstance(item, str):
            item = [item]
        parts.append(f'"{key}":{_go_value(item)}')
    return f"{{{','.join(parts)}}}"


_POINTERS = ("Healthcheck", "StopTimeout")
"""Fields of which Go knows "not there" from "empty"."""


def _as_typed(key: str, item: Any) -> Any:
    """What Go's types hold: a list of texts has no nulls, and a set of ports or volumes has no values."""
    if isinstance(item, list):
        return ["" if one is None else one for one in item]
    if isinstance(item, dict) and key in ("ExposedPorts", "Volumes"):
        return {one: {} for one in item}
    return item


def _go_health(value: dict[str, Any]) -> str:
    fields = ((key, _as_typed(key, value.get(key))) for key in _HEALTH_NAMES.values())
    return f"{{{','.join(f'{_go_string(key)}:{_go_value(item)}' for key, item in fields if item)}}}"


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
