"""History: the build steps of images, each with the layer it made."""

from __future__ import annotations

from contextlib import ExitStack

from imgtar.errors import DependencyMissing, StoreTrouble
from imgtar.graph.views import View, Views
from imgtar.ops.inspect import inspect_archive, inspect_store, is_archive
from imgtar.store.store import Store
from imgtar.text import printable

__all__ = ["history"]


def history(what: str, store: Store, stack: ExitStack) -> Views:
    """Return, for each image of an archive or each one a name means, its steps from the newest to the oldest.

    A step that made a layer carries ``digest``, ``diff_id`` and ``size`` (bytes) of it. When the history does not
    count as many layers as there are, the layers left over stand without a step. They can be looked at until ``stack``
    is closed.
    """
    inspection = inspect_archive(what, stack=stack) if is_archive(what) else inspect_store(what, store)
    missing = inspection.document["missing"]
    images: Views = inspection.document["images"].flat()
    if not images and missing and is_archive(what):
        lack = missing[0]["digest"] or missing[0]["expected_in"]
        message = f"the {missing[0]['kind']} {printable(lack)} is missing"
        raise DependencyMissing(message, where=what, hint=missing[0]["hint"])
    if not images and missing:
        raise StoreTrouble(
            f"the {missing[0]['kind']} {missing[0]['digest']} is missing or damaged",
            where=what,
            hint="load an archive that carries it: that repairs the store",
        )
    return images.each(_history_view)


def _history_view(image: View) -> View:
    return {
        "names": image["names"],
        "image_id": image["image_id"],
        "platform": image["platform"],
        "history": _steps(image),
    }


def _steps(image: View) -> list[View]:
    layers = list(image["layers"])
    steps = []
    for entry in image["history"]:
        layer = layers.pop(0) if not entry["empty_layer"] and layers else None
        steps.append({**entry, **_layer(layer)})
    for layer in layers:
        steps.append({"created": None, "created_by": "", "empty_layer": False, "comment": "", **_layer(layer)})
    return steps[::-1]


def _layer(layer: View | None) -> View:
    if layer is None:
        return {"digest": None, "diff_id": None, "size": 0}
    return {"digest": layer["digest"], "diff_id": layer["diff_id"], "size": layer["size"]}
