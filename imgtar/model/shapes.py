"""The shapes that documents from strangers must have. pydantic's engine checks them here, at the rim, and nowhere else.

Strict types; what is optional may be absent, and ``null`` where Go programs write that for "nothing"; unknown properties
are allowed (image-spec: considerations.md, extensibility). What was checked is a plain dictionary of the known
properties, which documents.py and the readers of imgtar's own documents make values of. Every property stands under its
own name then, in whatever case the document has it: that is how Go programs read it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from imgtar.errors import Refused
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import Limits
from imgtar.model.platform import Platform
from imgtar.model.strictjson import fold
from imgtar.text import printable

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

__all__ = ["Kind", "checked", "descriptor_of", "parse_digest", "platform_of", "spelled"]

Kind = Literal[
    "manifest",
    "index",
    "config",
    "docker item",
    "layout",
    "inventory head",
    "inventory document",
    "listed blob",
    "listed image",
    "thin",
]
_Schema = dict[str, Any]


# -- the words that shapes are made of: core schemas of pydantic --------------------------------------------------------

# Each says that it is strict: a configuration for all of them does not reach into every one (a size took 1.5).

_TEXT: _Schema = {"type": "str", "strict": True}
_NUMBER: _Schema = {"type": "int", "strict": True}
_SIZE: _Schema = {"type": "int", "strict": True, "ge": 0, "le": (1 << 63) - 1}
_FLAG: _Schema = {"type": "bool", "strict": True}


def _list(of: _Schema) -> _Schema:
    return {"type": "list", "strict": True, "items_schema": of}


def _map(to: _Schema) -> _Schema:
    return {"type": "dict", "strict": True, "keys_schema": _TEXT, "values_schema": to}


def _or_null(schema: _Schema) -> _Schema:
    return {"type": "nullable", "schema": schema}


def _one_of(*words: str) -> _Schema:
    return {"type": "literal", "expected": list(words)}


def _object(required: Mapping[str, _Schema], optional: Mapping[str, _Schema]) -> _Schema:
    fields = {key: {"type": "typed-dict-field", "schema": schema, "required": True} for key, schema in required.items()}
    for key, schema in optional.items():
        fields[key] = {"type": "typed-dict-field", "schema": schema, "required": False}
    return {"type": "typed-dict", "strict": True, "extra_behavior": "ignore", "fields": fields}


# -- documents of images ------------------------------------------------------------------------------------------------

_PLATFORM = _object(
    {},
    {
        "os": _or_null(_TEXT),
        "architecture": _or_null(_TEXT),
        "variant": _or_null(_TEXT),
        "os.version": _or_null(_TEXT),
        "os.features": _or_null(_list(_TEXT)),
    },
)
_DESCRIPTOR = _object(
    {"digest": _TEXT, "size": _SIZE},
    {
        "mediaType": _or_null(_TEXT),
        "platform": _or_null(_PLATFORM),
        "annotations": _or_null(_map(_TEXT)),
        "artifactType": _or_null(_TEXT),
        "urls": _or_null(_list(_TEXT)),
        "data": _or_null(_TEXT),
    },
)
_TYPED = {
    "mediaType": _or_null(_TEXT),
    "artifactType": _or_null(_TEXT),
    "subject": _or_null(_DESCRIPTOR),
    "annotations": _or_null(_map(_TEXT)),
}
_MANIFEST = _object({"schemaVersion": _NUMBER, "config": _DESCRIPTOR, "layers": _list(_DESCRIPTOR)}, _TYPED)
_INDEX = _object(
    # Docker 25.0.0-25.0.2 wrote null here (moby#47210); an index without the key at all is damaged.
    {"manifests": _or_null(_list(_DESCRIPTOR))},
    {"schemaVersion": _NUMBER, **_TYPED},
)
_HISTORY = _object(
    {},
    {
        "created": _or_null(_TEXT),
        "created_by": _or_null(_TEXT),
        "author": _or_null(_TEXT),
        "comment": _or_null(_TEXT),
        "empty_layer": _or_null(_FLAG),
    },
)
_CONFIG = _object(
    {"rootfs": _object({}, {"type": _or_null(_TEXT), "diff_ids": _or_null(_list(_TEXT))})},
    {
        "architecture": _or_null(_TEXT),
        "os": _or_null(_TEXT),
        "variant": _or_null(_TEXT),
        "os.version": _or_null(_TEXT),
        "os.features": _or_null(_list(_TEXT)),
        "created": _or_null(_TEXT),
        "parent": _or_null(_TEXT),
        "history": _or_null(_list(_HISTORY)),
        "config": _or_null(_object({}, {"Labels": _or_null(_map(_TEXT))})),
    },
)
_DOCKER_ITEM = _object(
    {"Config": _TEXT, "Layers": _list(_TEXT)},
    {"RepoTags": _or_null(_list(_TEXT)), "Parent": _or_null(_TEXT), "LayerSources": _or_null(_map(_DESCRIPTOR))},
)
_LAYOUT = _object({"imageLayoutVersion": _TEXT}, {})

# -- documents of imgtar's own: strict too, for they travel on media that strangers may touch ---------------------------

_BLOB_KIND = _one_of("manifest", "index", "config", "layer", "blob")
# The first line of an inventory file (graph/listing.py).
_INVENTORY_HEAD = _object(
    {"schema": _TEXT, "where": _TEXT, "root": _TEXT, "blobs": _SIZE, "images": _SIZE, "check": _TEXT},
    {"redacted": _FLAG},
)
# The line of one blob in it.
_LISTED_BLOB = _object(
    {"digest": _TEXT, "size": _SIZE, "kind": _BLOB_KIND}, {"diff_id": _or_null(_TEXT), "media_type": _TEXT}
)
# The line of one image under one name; its blobs count the blob lines from 0.
_LISTED_IMAGE = _object(
    {"name": _or_null(_TEXT), "digest": _or_null(_TEXT), "image_id": _or_null(_TEXT), "complete": _FLAG},
    {"platform": _or_null(_TEXT), "blobs": _list(_SIZE)},
)
# The same as one document: what ``imgtar inventory --json`` writes.
_INVENTORY_DOCUMENT = _object(
    {"schema": _TEXT, "where": _TEXT, "root": _TEXT, "blobs": _list(_LISTED_BLOB), "images": _list(_LISTED_IMAGE)},
    {"redacted": _FLAG},
)
# ``imgtar.json`` of a thin archive (graph/thin.py).
_THIN = _object(
    {
        "schema": _TEXT,
        "bases": _list(
            _object(
                {
                    "names": _list(_TEXT),
                    "image_id": _or_null(_TEXT),
                    "digest": _or_null(_TEXT),
                    "inventory": _TEXT,
                },
                {},
            )
        ),
        "images": _list(
            _object(
                {
                    "names": _list(_TEXT),
                    "digest": _TEXT,
                    "image_id": _or_null(_TEXT),
                    "platform": _or_null(_TEXT),
                    "requires": _list(_SIZE),
                },
                {"layers": _list(_or_null(_SIZE))},
            )
        ),
        "requires": _list(
            _object(
                {"kind": _BLOB_KIND, "mediaType": _TEXT, "digest": _TEXT, "size": _SIZE},
                {"diff_id": _or_null(_TEXT), "base": _or_null(_SIZE)},
            )
        ),
    },
    {},
)

_SHAPES: Mapping[Kind, _Schema] = {
    "manifest": _MANIFEST,
    "index": _INDEX,
    "config": _CONFIG,
    "docker item": _DOCKER_ITEM,
    "layout": _LAYOUT,
    "inventory head": _INVENTORY_HEAD,
    "inventory document": _INVENTORY_DOCUMENT,
    "listed blob": _LISTED_BLOB,
    "listed image": _LISTED_IMAGE,
    "thin": _THIN,
}


@cache
def _validator(kind: Kind) -> SchemaValidator:
    from pydantic_core import SchemaValidator

    schema: Any = _SHAPES[kind]
    return SchemaValidator(schema)


_Respell = Callable[[Any], Any]


def spelled(kind: Kind, value: Any) -> Any:
    """Return ``value``, of which :func:`parse_json` made sure that no two keys fold to one, with known keys as in the shape.

    Go programs take a property in any case, also with the letters that Unicode folds to ASCII ones.
    """
    return _respelling(kind)(value)


@cache
def _respelling(kind: Kind) -> _Respell:
    respell = _respelling_of(_SHAPES[kind])
    assert respell is not None
    return respell


def _respelling_of(schema: _Schema) -> _Respell | None:
    """The function that does it for one part of a shape; ``None`` for a part that has no objects."""
    match schema["type"]:
        case "nullable":
            return _respelling_of(schema["schema"])
        case "list":
            each = _respelling_of(schema["items_schema"])
            return None if each is None else lambda value: list(map(each, value)) if isinstance(value, list) else value
        case "dict":
            one = _respelling_of(schema["values_schema"])
            return None if one is None else lambda value: _each_value(one, value)
        case "typed-dict":
            return _respelling_of_object(schema["fields"])
    return None


def _each_value(one: _Respell, value: Any) -> Any:
    return {key: one(item) for key, item in value.items()} if isinstance(value, dict) else value


def _respelling_of_object(fields: Mapping[str, _Schema]) -> _Respell:
    names, own = fields.keys(), {fold(name): name for name in fields}
    inner = [(name, each) for name, field in fields.items() if (each := _respelling_of(field["schema"])) is not None]

    def respell(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if not value.keys() <= names:
            value = {own.get(fold(key), key): item for key, item in value.items()}
        for name, each in inner:
            if name in value:
                value[name] = each(value[name])
        return value

    return respell


def checked(kind: Kind, value: Any, what: str) -> dict[str, Any]:
    """Return what is known of ``value``, which has that shape. Raises ``E_JSON`` naming the place and what is wrong."""
    validator = _validator(kind)
    try:
        found: dict[str, Any] = validator.validate_python(value)
    except ValueError as error:
        raise _refusal(error, what) from None
    return found


def _refusal(error: ValueError, what: str) -> Refused:
    from pydantic_core import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    return Refused("E_JSON", f"{printable(place)}: {printable(first['msg'])}", where=what)


# -- the values that stand in many documents -----------------------------------------------------------------------------


def parse_digest(text: str, what: str) -> Digest:
    """:meth:`Digest.parse`, with the document in what it raises."""
    try:
        return Digest.parse(text)
    except Refused as error:
        raise error.within(what) from None


def descriptor_of(found: Mapping[str, Any], what: str, limits: Limits) -> Descriptor:
    """The descriptor that was checked as part of a document; data embedded in it is held against it."""
    digest = parse_digest(found["digest"], what)
    size, get = found["size"], found.get
    platform, data = get("platform"), get("data")
    return Descriptor(
        get("mediaType") or "",
        digest,
        size,
        platform_of(platform) if platform is not None else None,
        get("annotations") or {},
        get("artifactType") or "",
        tuple(get("urls") or ()),
        _embedded(data, digest, size, what, limits) if data is not None else None,
    )


def platform_of(found: Mapping[str, Any]) -> Platform:
    """The platform that a descriptor or a config names."""
    get = found.get
    return Platform(
        get("os") or "",
        get("architecture") or "",
        get("variant") or "",
        get("os.version") or "",
        tuple(get("os.features") or ()),
    )


def _embedded(text: str, digest: Digest, size: int, what: str, limits: Limits) -> bytes:
    if len(text) > limits.document * 4 // 3 + 4:
        raise Refused("E_LIMIT", f"the data embedded for {digest} is too large", where=what)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("E_DIGEST", f"the data embedded for {digest} is not base64", where=what) from None
    if len(data) != size:
        message = f"the data embedded for {digest} has {len(data)} bytes, its descriptor says {size}"
        raise Refused("E_DIGEST", message, where=what)
    if digest.supported and Digest.of(data, digest.algorithm) != digest:
        raise Refused("E_DIGEST", f"the data embedded for {digest} has another digest", where=what)
    return data
