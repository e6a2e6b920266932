"""Names from annotations, images as people and scripts see them, gaps as sentences."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgtar.frozen import replace
from imgtar.graph.explain import describe_missing, explain_missing
from imgtar.graph.names import names_of
from imgtar.graph.plan import Missing
from imgtar.graph.views import Views, rfc3339, root_views
from imgtar.model.chain import chain_ids
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference
from tests.builders.images import attestation, make_image, make_index
from tests.graph.shelf import blobs_of, catalog_of, root_of

REF = "org.opencontainers.image.ref.name"
FULL = "io.containerd.image.name"


def named(**annotations: str) -> tuple[tuple[str, ...], list[str]]:
    keys = {"full": FULL, "ref": REF}
    marks = {keys[key]: value for key, value in annotations.items()}
    labels, references = names_of(Descriptor("x", Digest.of(b""), 0, annotations=marks))
    return labels, [reference.full for reference in references]


@pytest.mark.parametrize(
    ("annotations", "labels", "references"),
    [
        ({}, (), []),
        ({"full": "docker.io/library/app:1"}, ("app:1",), ["docker.io/library/app:1"]),
        ({"full": "docker.io/library/app:1", "ref": "1"}, ("app:1",), ["docker.io/library/app:1"]),
        ({"full": "docker.io/library/app:1", "ref": "other:2"}, ("app:1",), ["docker.io/library/app:1"]),
        ({"ref": "app:1"}, ("app:1",), ["docker.io/library/app:1"]),
        ({"ref": "x.example/app"}, ("x.example/app:latest",), ["x.example/app:latest"]),
        ({"ref": "1"}, ("1",), []),
        ({"ref": "latest"}, ("latest",), []),
        ({"ref": "a word of my own"}, ("a word of my own",), []),
        ({"full": "NOT A NAME", "ref": "app:1"}, ("app:1",), ["docker.io/library/app:1"]),
        ({"full": "NOT A NAME"}, ("NOT A NAME",), []),
        ({"ref": "app:1@sha256:" + "a" * 64}, ("app:1",), ["docker.io/library/app:1"]),
        ({"ref": "app@sha256:" + "a" * 64}, ("app@sha256:" + "a" * 64,), []),
    ],
)
def test_annotations_give_a_label_and_perhaps_a_whole_name(
    annotations: dict[str, str], labels: tuple[str, ...], references: list[str]
) -> None:
    assert named(**annotations) == (labels, references)


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_an_annotation_says_a_reference_has_a_tag_and_no_digest(full: str, ref: str) -> None:
    marks = {FULL: full, REF: ref}
    labels, references = names_of(Descriptor("x", Digest.of(b""), 0, annotations=marks))
    assert len(labels) <= 1
    for reference in references:
        assert reference.tag
        assert reference.digest is None
        assert Reference.parse(reference.full) == reference


# -- views -----------------------------------------------------------------------------------------------------------

APP = make_image(("app:1", "app:2"), compression="gzip", seed=1)
ARM = make_image((), seed=2, platform="linux/arm64/v8")
LOST = make_image((), seed=3, platform="linux/s390x")


def view(*roots: Any, blobs: dict[str, bytes], present: Any = lambda _digest: True) -> list[dict[str, Any]]:
    catalog = catalog_of(*roots, blobs=blobs)
    images, _ = root_views(catalog, catalog.roots, present)
    return images


def test_an_image_is_shown_with_all_the_ids_that_people_know_it_by() -> None:
    (image,) = view(APP, blobs=blobs_of(APP))
    assert image["names"] == ["app:1", "app:2"]
    assert (image["image_id"], image["digest"], image["platform"]) == (APP.image_id, APP.digest, "linux/amd64")
    assert image["created"] == "2024-01-02T03:04:05Z"
    assert image["size"] == len(APP.config) + sum(len(layer.blob) for layer in APP.layers)
    chains = chain_ids([Digest.parse(layer.diff_id) for layer in APP.layers])
    for row, layer, chain, place in zip(image["layers"], APP.layers, chains, range(3), strict=True):
        assert (row["digest"], row["diff_id"], row["chain_id"]) == (layer.digest, layer.diff_id, str(chain))
        assert (row["size"], row["media_type"], row["present"]) == (len(layer.blob), layer.media_type, True)
        assert row["created_by"] == f"COPY {place}"
    assert image["labels"] == {"seed": "1"}
    assert image["parent"] is None


def test_a_layer_that_is_not_here_is_shown_as_not_here() -> None:
    gone = Digest.parse(APP.layers[1].digest)
    (image,) = view(APP, blobs=blobs_of(APP), present=lambda digest: digest != gone)
    assert [row["present"] for row in image["layers"]] == [True, False, True]


def test_steps_without_a_layer_do_not_shift_the_commands_of_the_others() -> None:
    def add_env(config: Any) -> None:
        config["history"].insert(1, {"created_by": "ENV A=1", "empty_layer": True})

    image = APP.with_config(add_env)
    (shown,) = view(image, blobs=blobs_of(image))
    assert [row["created_by"] for row in shown["layers"]] == ["COPY 0", "COPY 1", "COPY 2"]
    assert [step["empty_layer"] for step in shown["history"]] == [False, True, False, False]


@pytest.mark.parametrize("steps", [0, 1, 9])
def test_a_history_that_counts_wrongly_is_shown_as_it_is(steps: int) -> None:
    def change(config: Any) -> None:
        config["history"] = [{"created_by": str(n)} for n in range(steps)]

    image = APP.with_config(change)
    (shown,) = view(image, blobs=blobs_of(image))
    assert [row["created_by"] for row in shown["layers"]] == [str(n) if n < steps else None for n in range(3)]
    assert len(shown["history"]) == steps


def test_an_index_shows_its_images_what_is_absent_and_what_else_it_holds() -> None:
    index = make_index(APP, ARM, attestation(APP), sparse=[LOST])
    (shown,) = view(root_of(index, ["multi:1"]), blobs=blobs_of(index))
    assert (shown["names"], shown["digest"]) == (["multi:1"], index.digest)
    assert [child["platform"] for child in shown["manifests"]] == ["linux/amd64", "linux/arm64/v8"]
    assert [(absent["digest"], absent["platform"]) for absent in shown["absent"]] == [(LOST.digest, "linux/s390x")]
    assert [(other["digest"], other["subject"]) for other in shown["other"]] == [(attestation(APP).digest, APP.digest)]
    flat = Views([shown]).flat()
    assert [image["names"] for image in flat] == [["multi:1"], ["multi:1"]]


def test_a_declared_base_is_shown_with_where_it_was_learned() -> None:
    def annotate(manifest: Any) -> None:
        manifest["annotations"] = {
            "org.opencontainers.image.base.name": "docker.io/library/base:1",
            "org.opencontainers.image.base.digest": "sha256:" + "a" * 64,
        }

    image = APP.with_manifest(annotate)
    (shown,) = view(image, blobs=blobs_of(image))
    assert shown["parent"]["name"] == "docker.io/library/base:1"
    assert shown["parent"]["digest"] == "sha256:" + "a" * 64
    assert shown["parent"]["learned_from"]
    (shown,) = view(root_of(APP, parent=ARM.image_id), blobs=blobs_of(APP))
    assert shown["parent"]["image_id"] == ARM.image_id


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456789Z"),
        ("2024-01-02T03:04:05+02:00", "2024-01-02T01:04:05Z"),
        ("2024-01-02T03:04:05.5-01:00", "2024-01-02T04:04:05.500000Z"),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("", None),
        ("yesterday", None),
        ("2024-13-01T00:00:00Z", None),
    ],
)
def test_times_are_shown_in_utc_or_not_at_all(text: str, shown: str | None) -> None:
    assert rfc3339(text) == shown


@given(st.text(alphabet="0123456789-:T.Z+ ", max_size=36) | st.datetimes(timezones=st.timezones()).map(str))
@example("20240102T030405Z")
@example("2024-W01-1T00:00:00Z")
@example("2024-01-02T03Z")
@example("2024-01-02 03:04:05Z")
@example("2024-01-02T03:04:05,5Z")
def test_no_time_whatever_breaks_the_view(text: str) -> None:
    shown = rfc3339(text)
    assert shown is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown, re.ASCII)


# -- sentences -------------------------------------------------------------------------------------------------------


def gap(number: int = 0, **changes: Any) -> Missing:
    made = Missing("layer", Digest.of(b"%d" % number), None, 5_000_000, ("app:1",), "usb/app.tar", "absent", "bring it")
    return replace(made, **changes)


@pytest.mark.parametrize("kind", ["absent", "promised-by-base", "damaged", "platform-not-shipped", "foreign"])
def test_every_class_of_gap_has_a_sentence_of_its_own(kind: Any) -> None:
    sentence = describe_missing(gap(gap_class=kind))
    assert str(Digest.of(b"0")) in sentence
    assert "app:1" in sentence
    assert "usb/app.tar" in sentence
    assert "5 MB" in sentence
    others = {"absent", "promised-by-base", "damaged", "platform-not-shipped", "foreign"} - {kind}
    assert all(sentence != describe_missing(gap(gap_class=other)) for other in others)  # type: ignore[arg-type]


def test_a_gap_known_by_its_diff_id_alone_is_called_that() -> None:
    diff_id = Digest.of(b"diff")
    assert f"diff ID {diff_id}" in describe_missing(gap(digest=None, diff_id=diff_id))


def test_many_gaps_are_counted_shown_up_to_five_hundred_and_all_in_the_details() -> None:
    error = explain_missing([gap(number) for number in range(510)])
    assert error.exit_code == 4
    assert "510 things are missing" in error.message
    assert "10 more" in error.message
    assert len(error.details["missing"]) == 510  # type: ignore[arg-type]
    assert str(Digest.of(b"499")) in error.message
    assert str(Digest.of(b"500")) not in error.message


def test_equal_hints_are_given_once() -> None:
    assert explain_missing([gap(1), gap(2)]).hint == "bring it"
    assert explain_missing([gap(1), gap(2, hint="find it")]).hint == "bring it; find it"


def test_many_images_that_need_one_thing_are_counted() -> None:
    sentence = describe_missing(gap(needed_by=tuple(f"app:{n}" for n in range(9))))
    assert "app:4" in sentence
    assert "app:5" not in sentence
    assert "4 more" in sentence


def test_names_from_archives_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in describe_missing(gap(needed_by=("\x1b[2J",), expected_in="\x1b]0;x\x07"))
