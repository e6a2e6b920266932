"""What a root may need, by its bytes alone: for those whose documents cannot be believed, and must not be for this.

Whoever deletes has to know what is needed. Of a root that is objected to, everything counts that its documents mention,
in whatever place, and whatever those mention: more than it can ever need, so that nothing is lost with it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from contextlib import suppress

from imgtar.errors import Refused
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.inventory import StoreInventory, is_object

__all__ = ["mentioned", "reach"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def mentioned(raw: bytes) -> set[Digest]:
    """Every digest in a document, also one that an escape hides, or a doubled key, or data that is embedded."""
    found: set[str] = set()
    stack: list[object] = [raw.decode("utf-8", "replace")]
    with suppress(ValueError, RecursionError):  # It may be no JSON: then there is nothing but its text.
        stack.append(json.loads(raw, object_pairs_hook=list))  # Pairs: the second of a key hides no first.
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            found.update(_DIGEST.findall(value))
        elif isinstance(value, list | tuple):
            if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
                found |= {str(digest) for digest in _embedded(*value)}
            stack.extend(value)
    return {Digest.parse(text) for text in found}


def _embedded(key: str, text: str) -> set[Digest]:
    if key.lower() != "data":
        return set()
    try:
        return mentioned(base64.b64decode(text))
    except (binascii.Error, ValueError):
        return set()


def reach(inventory: StoreInventory, root: Digest) -> tuple[set[Digest], bool]:
    """Every digest that may be needed for the sake of ``root``, and whether no damaged file hides further ones."""
    found = {root}
    certain = inventory.status(root) is not None
    stack = [root]
    while stack:
        digest = stack.pop()
        status = inventory.status(digest)
        path = inventory.layout.blob_path(digest)
        if status is None:
            certain &= not os.path.lexists(path)
            continue
        # What is small is read whole: in a damaged document the beginning may be what is damaged.
        if status.st_size > DEFAULT_LIMITS.config and not is_object(path):
            continue
        try:
            raw = inventory.document(digest, STORE_LIMITS.document)
        except Refused:
            raw = None
        if raw is None:
            certain = False
            continue
        new = mentioned(raw) - found
        found |= new
        stack += new
    return found, certain
