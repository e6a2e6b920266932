"""The index in imgtar's own form is read as text; whatever is read so, the strict reader reads alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.errors import Refused
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import Limits
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference
from imgtar.store.entry import Entry, encode_index, parse_strictly, read_written

HEX = "0123456789abcdef" * 4
START = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['


def facts(entries: list[Entry] | None) -> list[Any] | None:
    return entries and [(one.digest, one.name, one.label, one.descriptor, one.parent, one.bare) for one in entries]


words = st.text(max_size=8) | st.sampled_from(
    ["app:1", "docker.io/library/app:1", "x/y", "sha256:" + "a" * 64, '"', "\\", "\n", "\x7f", "\u2028", "é", "a b"]
)
keys = st.sampled_from(
    [mediatype.CONTAINERD_NAME, mediatype.REF_NAME, "imgtar.parent", "Created", "created", "a.b", "z"]
)
platforms = st.builds(Platform, words, words, words, words, st.lists(words, max_size=2).map(tuple))
descriptors = st.builds(
    Descriptor,
    words,
    st.sampled_from([Digest("sha256", HEX), Digest("sha512", HEX * 2), Digest("sha256", HEX[::-1])]),
    st.integers(0, (1 << 63) - 1),
    st.none() | platforms,
    st.dictionaries(keys, words, max_size=4),
    words,
    st.lists(words, max_size=1).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(descriptors, max_size=3))
def test_what_imgtar_writes_is_read_as_the_strict_reader_reads_it(them: list[Descriptor]) -> None:
    raw = encode_index([Entry.read(one) for one in them], {})
    quick = read_written(raw)
    try:
        strict = parse_strictly(raw)
    except Refused:
        assert quick is None
        return
    if quick is not None:
        assert quick == strict
        assert facts(quick) == facts(strict)
        assert encode_index(quick, {}) == raw == encode_index(strict, {})


def image(name: str = "app:1", **more: Any) -> dict[str, Any]:
    full = f"docker.io/library/{name}"
    notes = {mediatype.CONTAINERD_NAME: full, mediatype.REF_NAME: name}
    head = {"mediaType": mediatype.IMAGE_MANIFEST, "digest": f"sha256:{HEX}", "size": 7}
    return {**head, "annotations": notes, "platform": {"architecture": "amd64", "os": "linux"}, **more}


def written(*entries: dict[str, Any]) -> bytes:
    return START + b",".join(json.dumps(one, separators=(",", ":")).encode() for one in entries) + b"]}"


def test_the_usual_form_is_read_as_text() -> None:
    found = read_written(written(image("app:1"), image("b:2", artifactType="x/y")))
    assert found is not None
    assert [one.name for one in found] == [Reference.parse("app:1"), Reference.parse("b:2")]
    assert read_written(START + b"]}") == []


GOOD = written(image())
STRANGE = {
    "a space": GOOD.replace(b'"size":7', b'"size": 7'),
    "a key twice": GOOD.replace(b'"size":7', b'"size":7,"size":8'),
    "a key in another case": GOOD.replace(b'"size":7', b'"size":7,"Size":8'),
    "a key of an annotation twice": GOOD.replace(b'"io.cont', b'"a":"1","a":"2","io.cont'),
    "keys of annotations that differ in case": GOOD.replace(b'"io.cont', b'"ID":"1","id":"2","io.cont'),
    "a name twice": GOOD.replace(b'","org.opencontainers', b'","io.containerd.image.name":"b:1","org.opencontainers'),
    "a size that is none": GOOD.replace(b'"size":7', b'"size":-0'),
    "a size out of range": GOOD.replace(b'"size":7', b'"size":9223372036854775808'),
    "a size with a point": GOOD.replace(b'"size":7', b'"size":7.0'),
    "digits of another script": GOOD.replace(b'"size":7', '"size":\u0667'.encode()),
    "a digest that is none": GOOD.replace(HEX.encode(), HEX[:-1].encode() + b"A"),
    "a digest with a line break": GOOD.replace(HEX.encode(), HEX.encode() + b"\\n"),
    "half a surrogate pair": GOOD.replace(b"app:1", b"\\ud800"),
    "not UTF-8": GOOD.replace(b"app:1", b"\xff"),
    "a control character": GOOD.replace(b"app:1", b"a\x01"),
    "more after the end": GOOD + b"\n",
    "more in the list": GOOD[:-2] + b",]}",
    "nothing in the list but a comma": START + b",]}",
    "cut off": GOOD[:-1],
    "cut off in an entry": GOOD[:-30],
    "a list twice": GOOD[:-1] + b',"manifests":[]}',
    "another member": GOOD[:-1] + b',"annotations":{}}',
    "embedded data": written(image(data="eA==")),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "nothing": b"",
    "what is not written when it is empty": written(image(artifactType="")),
    "a variant that is empty": written(image(platform={"architecture": "arm64", "os": "linux", "variant": ""})),
    "an escape that json does not write": GOOD.replace(b'"amd64"', b'"\\u0008"'),
}


@pytest.mark.parametrize("raw", STRANGE.values(), ids=STRANGE)
def test_any_other_form_is_left_to_the_strict_reader(raw: bytes) -> None:
    assert raw != GOOD
    assert read_written(raw) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 4))
def test_a_changed_byte_is_never_read_otherwise(at: int, new: bytes, gone: int) -> None:
    raw = GOOD[:at] + new + GOOD[at + gone :]
    quick = read_written(raw)
    if quick is not None:
        assert facts(quick) == facts(parse_strictly(raw))


def test_entries_that_say_the_same_are_equal_however_they_were_read() -> None:
    quick, strict = read_written(GOOD), parse_strictly(GOOD)
    assert quick == strict
    assert {*(quick or [])} == {*strict}
    assert quick != [Entry.make(strict[0].descriptor, Reference.parse("other:1"), None)]


PARTS = [
    "docker.io/",
    "library/",
    "localhost/",
    "localhost:5000/",
    "quay.io/",
    "a/",
    "app",
    "A",
    "sha256:",
    ":1",
    ":",
    "/",
    "@",
]


@settings(max_examples=500)
@given(*2 * [st.lists(st.sampled_from(PARTS), max_size=5).map("".join)])
def test_two_names_of_an_entry_mean_what_the_strict_reader_makes_of_them(full: str, familiar: str) -> None:
    """``docker.io/localhost/a:1`` beside ``localhost/a:1`` is a copy with another name: there a host begins."""
    raw = written(image(annotations={mediatype.CONTAINERD_NAME: full, mediatype.REF_NAME: familiar}))
    assert facts(read_written(raw)) == facts(parse_strictly(raw))


@pytest.mark.parametrize(
    ("full", "familiar"),
    [("docker.io/localhost/a:1", "localhost/a:1"), ("docker.io/library/localhost:1", "localhost:1")],
)
def test_localhost_is_a_host_and_may_be_a_name(full: str, familiar: str) -> None:
    raw = written(image(annotations={mediatype.CONTAINERD_NAME: full, mediatype.REF_NAME: familiar}))
    assert facts(read_written(raw)) == facts(parse_strictly(raw))


def test_more_values_than_an_index_may_have_are_left_to_the_strict_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = written(image(annotations={"a": "{" * 50}))
    assert read_written(raw) is not None
    monkeypatch.setattr("imgtar.store.entry.STORE_LIMITS", Limits(json_values=40))
    assert read_written(raw) is None


def test_an_entry_that_umoci_copied_has_its_new_name() -> None:
    raw = written(image(annotations={mediatype.CONTAINERD_NAME: "docker.io/library/a:1", mediatype.REF_NAME: "b:1"}))
    found = read_written(raw)
    assert found is not None
    assert found[0].name == Reference.parse("b:1")
