"""Images that are called something else, and indexes in which engines find different images for one platform."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import (
    IN_TOTO,
    OCI_MANIFEST,
    Document,
    Files,
    Image,
    Layer,
    attestation,
    dumps,
    hybrid_files,
    make_image,
    make_index,
    make_layer,
    oci_files,
    oci_layout,
    random_layer,
    sha256,
)
from tests.hostile.conftest import FEW, World

Assert = Callable[..., None]

GOOD = make_image("demo:1", layers=2)
EVIL = make_image("demo:1", layers=1, seed=666)
TYPE, ATTESTS = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "application/vnd.docker.attestation.manifest.v1+json"


def rooted(descriptor: dict[str, Any], document: Document, name: str = "demo:1") -> Files:
    """A layout whose only entry is ``document``, described in other words."""
    files = oci_layout([(document, [name])])
    return files.edited("index.json", lambda v: _merge(v["manifests"][0], descriptor))


def _merge(entry: dict[str, Any], more: dict[str, Any]) -> None:
    entry.update(
        {key: {**entry.get(key, {}), **value} if isinstance(value, dict) else value for key, value in more.items()}
    )


# -- marks -------------------------------------------------------------------------------------------------------------

CALLED = {
    "reference type": {"annotations": {TYPE: "attestation-manifest"}},
    "other reference type": {"annotations": {TYPE: "x"}},
    "about itself": {"annotations": {TYPE: "attestation-manifest", ATTESTS: EVIL.digest}},
    "artifact type": {"artifactType": ATTESTATION},
}


@pytest.mark.parametrize("mark", CALLED)
def test_h267_an_image_that_is_called_an_attestation_is_refused(assert_refused: Assert, mark: str) -> None:
    assert_refused(rooted(CALLED[mark], EVIL.document).tar(), "E_TYPE")
    # The same inside an index, beside an honest image.
    index = make_index(GOOD, EVIL)
    files = oci_layout([(index_with(index, 1, CALLED[mark]), ["demo:1"])])
    assert_refused(files.tar(), "E_TYPE", runs=FEW)


def index_with(index: Document, place: int, more: dict[str, Any]) -> Document:
    value = json.loads(index.raw)
    _merge(value["manifests"][place], more)
    return replace(index, raw=dumps(value))


def test_h267_an_index_that_is_called_an_attestation_is_refused(assert_refused: Assert) -> None:
    index = make_index(EVIL)
    assert_refused(rooted(CALLED["reference type"], index).tar(), "E_TYPE", runs=FEW)
    arm = make_image("demo:1", platform="linux/arm64", seed=7)
    outer = index_with(make_index(arm, index), 1, CALLED["reference type"])
    assert_refused(oci_layout([(outer, ["demo:1"])]).tar(), "E_TYPE", runs=FEW)


def test_h267_a_manifest_that_calls_itself_an_attestation_is_refused_when_it_runs(assert_refused: Assert) -> None:
    image = EVIL.with_manifest(lambda m: m.update(artifactType=ATTESTATION))
    assert_refused(oci_files([image]).tar(), "E_TYPE", runs=FEW)
    assert_refused(hybrid_files([image]).tar(), "E_TYPE", runs=FEW)


def test_h267_one_entry_that_marks_what_another_names_is_refused(assert_refused: Assert) -> None:
    for place in (0, 1):
        files = oci_files([GOOD.named("demo:1", "demo:2")])
        files = files.edited(
            "index.json", lambda v, place=place: _merge(v["manifests"][place], CALLED["reference type"])
        )
        assert_refused(files.tar(), "E_TYPE", runs=FEW)


def test_h267_an_image_for_an_unknown_platform_is_an_image(assert_accepted: Assert, world: World) -> None:
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
    files = rooted(unknown, EVIL.document)
    assert_accepted(files.tar(), names=["demo:1"], ids=[EVIL.image_id], warning="E_TYPE", runs=FEW)
    index = index_with(make_index(make_image(platform="linux/arm64", seed=5), EVIL), 1, unknown)
    done = world.run("inspect", oci_layout([(index, ["demo:1"])]).tar(), "file", "--json")
    assert {one["image_id"] for one in done.document["images"][0]["manifests"]} >= {EVIL.image_id}
    assert not done.document["images"][0]["other"]


def test_h267_the_diff_ids_of_an_image_for_an_unknown_platform_are_proved(assert_refused: Assert) -> None:
    lie = EVIL.with_config(lambda c: c["rootfs"].update(diff_ids=["sha256:" + "0" * 64]))
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
    assert_refused(rooted(unknown, lie.document).tar(), "E_DIFFID", unseen=("inspect", "plan"), runs=FEW)


def test_h267_an_unknown_platform_and_a_known_one_are_not_two(assert_refused: Assert) -> None:
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
    for items, place in (((GOOD, EVIL), 1), ((EVIL, GOOD), 0)):
        index = index_with(make_index(*items), place, unknown)
        assert_refused(oci_layout([(index, ["demo:1"])]).tar(), "E_TYPE", runs=FEW)


def test_h267_honest_attestations_are_carried_as_before(assert_accepted: Assert) -> None:
    new = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ATTESTATION,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [{"mediaType": IN_TOTO, "digest": sha256(b'{"a":1}'), "size": 7}],
            "subject": GOOD.document.descriptor(),
        }
    )
    below = {sha256(b"{}"): b"{}", sha256(b'{"a":1}'): b'{"a":1}'}
    marks = {TYPE: "attestation-manifest", ATTESTS: GOOD.digest}
    modern = Document(new, OCI_MANIFEST, "unknown/unknown", marks, below)
    for other in (attestation(GOOD), modern):
        for index in (make_index(GOOD, other), make_index(other, GOOD)):
            assert_accepted(
                oci_layout([(index, ["demo:1"])], hybrid=True).tar(), names=["demo:1"], ids=[GOOD.image_id], runs=FEW
            )


# -- types -------------------------------------------------------------------------------------------------------------

OTHER_CONFIGS = [
    "application/vnd.unknown.config.v1+json",
    "application/vnd.oci.empty.v1+json",
    "application/vnd.cncf.helm.config.v1+json",
    "",
]


@pytest.mark.parametrize("media_type", OTHER_CONFIGS)
def test_h268_a_config_of_another_type_makes_an_image_all_the_same(
    assert_accepted: Assert, assert_refused: Assert, media_type: str
) -> None:
    image = EVIL.with_manifest(lambda m: m["config"].update(mediaType=media_type))
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], ids=[EVIL.image_id], runs=FEW)
    lie = EVIL.with_config(lambda c: c["rootfs"].update(diff_ids=["sha256:" + "0" * 64]))
    lie = lie.with_manifest(lambda m: m["config"].update(mediaType=media_type))
    assert_refused(oci_files([lie]).tar(), "E_DIFFID", unseen=("inspect", "plan"), runs=FEW)


OTHER_LAYERS = ["application/octet-stream", IN_TOTO, "application/vnd.dev.cosign.simplesigning.v1+json"]
ARCHIVES = {
    "tar": EVIL.layers[0].blob,
    "gzip": gzip.compress(EVIL.layers[0].blob, mtime=0),
    "gzip of nothing": gzip.compress(b"", mtime=0),
    "zstd": random_layer(3, "zstd").blob,
    "bzip2": bz2.compress(EVIL.layers[0].blob),
    "end only": bytes(1024),
    "empty": b"",
}


def posing(blob: bytes, media_type: str, config_type: str | None = None, diff_id: str | None = None) -> Image:
    layer = Layer(blob, blob, None, media_type)
    image = make_image("demo:1", layers=[layer], seed=666)
    if diff_id:
        image = image.with_config(lambda c: c["rootfs"].update(diff_ids=[diff_id]))
    if config_type is not None:
        image = image.with_manifest(lambda m: m["config"].update(mediaType=config_type))
    return image


@pytest.mark.parametrize("config_type", [None, ""])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_h268_an_archive_that_is_called_something_else_is_refused(
    assert_refused: Assert, kind: str, config_type: str | None
) -> None:
    for media_type in OTHER_LAYERS:
        files = oci_files([posing(ARCHIVES[kind], media_type, config_type)])
        assert_refused(files.tar(), "E_TYPE", unseen=("inspect", "plan"), runs=[*FEW, ("verify", "file")])


def test_h268_an_archive_beside_honest_layers_is_refused(assert_refused: Assert) -> None:
    layers = [random_layer(1), Layer(EVIL.layers[0].blob, EVIL.layers[0].blob, None, IN_TOTO)]
    files = oci_files([make_image("demo:1", layers=layers)])
    assert_refused(files.tar(), "E_TYPE", unseen=("inspect", "plan"), runs=FEW)


def test_h268_layers_without_a_media_type_are_layers(assert_accepted: Assert, assert_refused: Assert) -> None:
    for config_type in (None, "", OTHER_CONFIGS[0]):
        image = posing(EVIL.layers[0].blob, "", config_type)
        assert_accepted(oci_files([image]).tar(), names=["demo:1"], ids=[image.image_id], runs=FEW)
        lie = posing(EVIL.layers[0].blob, "", config_type, diff_id="sha256:" + "0" * 64)
        assert_refused(oci_files([lie]).tar(), "E_DIFFID", unseen=("inspect",), runs=FEW)


def test_h268_layers_of_two_kinds_count_like_layers(assert_refused: Assert) -> None:
    # Docker with the containerd store shows it as an image, though nobody can unpack it.
    text = dumps({"a": 1})
    image = make_image("demo:1", layers=[random_layer(1), Layer(text, text, None, IN_TOTO)])
    image = image.with_config(lambda c: c["rootfs"]["diff_ids"].pop() and None)
    assert_refused(oci_files([image]).tar(), "E_DIFFID", runs=FEW)


def test_h268_an_archive_that_the_store_holds_already_is_refused(world: World) -> None:
    held = make_image("held:1", layers=list(EVIL.layers))
    assert world.run("load", oci_files([held]).tar(), "file").status == 0
    for form in ("file", "pipe"):
        files = oci_files([posing(EVIL.layers[0].blob, IN_TOTO)])
        done = world.run("load", files.tar(), form, "--json")
        assert done.status == 5, done
        assert done.document["error"]["code"] == "E_TYPE"
    both = oci_files([posing(EVIL.layers[0].blob, IN_TOTO).named("a:1"), held])
    assert world.run("load", both.tar(), "file").status == 5


def config_of(raw: bytes, layer: bytes = EVIL.layers[0].blob) -> Files:
    """A manifest with a config of an unknown type and with these bytes."""
    image = make_image("demo:1", layers=[make_layer(layer)])
    image = image.with_config(raw).with_manifest(lambda m: m["config"].update(mediaType=OTHER_CONFIGS[0]))
    return oci_files([image])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.replace(b'"rootfs":{', b'"rootf\xc5\xbf":{}, "rootfs":{'),
        lambda c: c.replace(b'"rootfs":{', b'"rootfs":{"diff_ids":[]},"rootfs":{'),
        lambda c: c[:-1] + b',"rootfs":null}',
        lambda c: c.replace(b'"os":', b'"x":"\xff","os":'),
        lambda c: c.replace(b'"os":', b'"x":' + b"9" * 5000 + b',"os":'),
        lambda c: c.replace(b'"os":', b'"x":' + b"[" * 5000 + b"]" * 5000 + b',"os":'),
        lambda c: b" \n" + c.replace(b'"os":', b'"x":"\\ud800","os":'),
    ],
)
def test_h268_a_config_that_only_go_would_read_is_refused(
    assert_refused: Assert, spoil: Callable[[bytes], bytes]
) -> None:
    assert_refused(config_of(spoil(EVIL.config)).tar(), "E_JSON", runs=FEW)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"not json",
        b"{{ a template",
        b'{"rootfs":{}}',
        b'{"rootfs":{"type":"layers"}}',
        b'{"rootfs":[{"diff_ids":["x"]}]}',
        b'{"image":{"rootfs":{"diff_ids":["sha256:00"]}}}',
        b'["rootfs"]',
        b'"rootfs"',
        b"",
        bytes(70_000),
    ],
)
def test_h268_artifacts_stay_artifacts(assert_accepted: Assert, world: World, raw: bytes) -> None:
    files = config_of(raw)
    assert_accepted(files.tar(), names=["demo:1"], runs=[*FEW, ("load", "gzip-pipe")])
    done = world.run("inspect", files.tar(), "pipe", "--json")
    assert done.document["images"] == []
    assert len(done.document["other"]) == 1


def lenient_headers() -> dict[str, bytes]:
    """Layers whose first header Go reads and imgtar's own reader does not."""
    plain = EVIL.layers[0].blob

    def summed(block: bytes, text: str, signed: bool = False) -> bytes:
        cleared = block[:148] + b" " * 8 + block[156:]
        total = sum(cleared) - (256 * sum(byte > 127 for byte in cleared) if signed else 0)
        return block[:148] + (text % total).encode() + block[156:]

    high = "\u00e9".encode() + plain[2:512]
    return {
        "blanks": summed(plain[:512], "  %4o\0 ") + plain[512:],
        "signed": summed(high, "%06o\0 ", signed=True) + plain[512:],
        "prefix under GNU magic": summed(plain[:257] + b"ustar  \0" + plain[265:345] + b"x" + plain[346:512], "%06o\0 ")
        + plain[512:],
    }


LENIENT = lenient_headers()


@pytest.mark.parametrize("kind", LENIENT)
def test_h268_a_tar_that_only_others_read_is_an_archive(assert_refused: Assert, kind: str) -> None:
    for blob in (LENIENT[kind], gzip.compress(LENIENT[kind], mtime=0)):
        files = oci_files([posing(blob, IN_TOTO, diff_id=sha256(LENIENT[kind]))])
        assert_refused(files.tar(), "E_TYPE", unseen=("inspect",), runs=[*FEW, ("plan", "file")])


@pytest.mark.parametrize("config", [b"{}", b'{"rootfs":null}', b'{"rootfs":{"type":"layers","diff_ids":[]}}'])
def test_h268_an_archive_below_a_config_that_says_nothing_is_refused(assert_refused: Assert, config: bytes) -> None:
    # podman computes the diff IDs itself.
    image = posing(EVIL.layers[0].blob, IN_TOTO).with_config(config)
    assert_refused(oci_files([image]).tar(), "E_TYPE", unseen=("inspect",), runs=FEW)


@pytest.mark.parametrize("config_type", ["application/x", "", OTHER_CONFIGS[0]])
def test_h268_below_a_manifest_of_docker_every_config_counts(
    assert_refused: Assert, assert_accepted: Assert, config_type: str
) -> None:
    def docker(image: Image) -> Files:
        kind = "application/vnd.docker.distribution.manifest.v2+json"

        def edit(manifest: Any) -> None:
            manifest["mediaType"] = kind
            manifest["config"]["mediaType"] = config_type
            for layer in manifest["layers"]:
                layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar"

        files = oci_files([image.with_manifest(edit)])
        return files.edited("index.json", lambda v: v["manifests"][0].update(mediaType=kind))

    assert_accepted(docker(EVIL).tar(), names=["demo:1"], ids=[EVIL.image_id], runs=FEW)
    assert_refused(docker(EVIL.with_config(b"{}")).tar(), "E_JSON", runs=FEW)
    assert_refused(docker(EVIL.with_config(b'{"rootfs":{}}')).tar(), "E_DIFFID", runs=FEW)


def test_h268_artifacts_that_no_engine_runs_stay_artifacts(assert_accepted: Assert, world: World) -> None:
    packed = gzip.compress(EVIL.layers[0].blob, mtime=0)
    # Flux: the config of its own type is that of an image, and so is the content, but the layer has its own type too.
    flux = posing(packed, "application/vnd.cncf.flux.content.v1.tar+gzip", "application/vnd.cncf.flux.config.v1+json")
    model = posing(
        b"GGUF" + bytes(600), "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.model.config.v0.1+json"
    )
    model = model.with_config(lambda c: c["rootfs"].update(type="rootfs"))
    # Nydus: blobs without a header, which begin with a compressed chunk; the bootstrap is a layer.
    chunk = gzip.compress(b"the content of a file, no tar", mtime=0)
    nydus = make_image(
        "demo:1", [Layer(chunk, chunk, None, "application/vnd.oci.image.layer.nydus.blob.v1"), random_layer(1)]
    )
    for image in (flux, model, nydus):
        data = oci_files([image]).tar()
        assert_accepted(data, names=["demo:1"], runs=[*FEW, ("plan", "file"), ("verify", "file")])
        for _ in range(2):  # The second time the store holds it.
            assert world.run("load", data, "file").status == 0


def test_h268_signatures_with_the_config_of_an_image_stay_signatures(assert_accepted: Assert, world: World) -> None:
    text = b'{"critical":{}}'
    image = posing(text, "application/vnd.dev.cosign.simplesigning.v1+json", diff_id=sha256(text)).named("demo:sig")
    data = oci_files([image]).tar()
    assert_accepted(data, names=["demo:sig"], runs=FEW)
    for _ in range(2):  # The second time the store holds it.
        assert world.run("load", data, "file").status == 0
    assert world.run("inspect", data, "file", "--json").document["images"] == []


def test_h268_a_lookalike_is_no_image_in_the_store_either(world: World, tmp_path: Path) -> None:
    image = EVIL.with_manifest(lambda m: m["config"].update(mediaType=OTHER_CONFIGS[0]))
    assert world.run("load", oci_files([image]).tar(), "file").status == 0
    (row,) = [one for one in world.command("images", "--json").document["images"] if one["name"] == "demo:1"]
    assert row["image_id"] == EVIL.image_id
    out = tmp_path / "out.tar"
    assert world.command("save", "-o", str(out), "demo:1").status == 0
    assert world.run("inspect", out, "file", "--json").document["images"][0]["image_id"] == EVIL.image_id
    # Loaded again it moves no tag.
    assert world.run("load", oci_files([image]).tar(), "file", "--no-clobber").status == 0


# -- platforms ---------------------------------------------------------------------------------------------------------


def index_of(*items: tuple[Image, dict[str, Any] | None]) -> Document:
    value = json.loads(make_index(*(image for image, _ in items)).raw)
    below: dict[str, bytes] = {}
    for entry, (image, platform) in zip(value["manifests"], items, strict=True):
        entry.pop("platform", None)
        if platform is not None:
            entry["platform"] = platform
        below.update(image.document.blobs())
    return Document(dumps(value), "application/vnd.oci.image.index.v1+json", None, {}, below)


AMD = {"os": "linux", "architecture": "amd64"}
TWICE = [
    (AMD, AMD),
    (AMD, {**AMD, "architecture": "x86_64"}),
    (AMD, {**AMD, "architecture": "x86-64"}),
    (AMD, {**AMD, "variant": "v1"}),
    (AMD, {**AMD, "architecture": "AMD64"}),
    (AMD, {**AMD, "os": "Linux"}),
    (AMD, {"architecture": "amd64", "os": ""}),
    (AMD, None),
    (None, None),
    (AMD, {**AMD, "os.version": "7"}),
    ({"os": "linux", "architecture": "arm64"}, {"os": "linux", "architecture": "aarch64", "variant": "v8"}),
    ({"os": "linux", "architecture": "arm"}, {"os": "linux", "architecture": "arm", "variant": "7"}),
    ({"os": "windows", "architecture": "amd64", "os.version": "1"},) * 2,
]


@pytest.mark.parametrize("pair", TWICE, ids=repr)
def test_h265_two_images_for_one_platform_below_one_index_are_refused(
    assert_refused: Assert, pair: tuple[Any, Any]
) -> None:
    for images in ((GOOD, EVIL), (EVIL, GOOD)):
        index = index_of((images[0], pair[0]), (images[1], pair[1]))
        for hybrid in (False, True):
            files = oci_layout([(index, ["demo:1"])], hybrid=hybrid)
            assert_refused(files.tar(), "E_TYPE", runs=FEW)


def test_h265_two_images_for_one_platform_at_different_depths_are_refused(assert_refused: Assert) -> None:
    inner = make_index(EVIL)
    for items in ((GOOD, inner), (inner, GOOD)):
        assert_refused(oci_layout([(make_index(*items), ["demo:1"])]).tar(), "E_TYPE", runs=FEW)


def test_h265_an_inner_index_with_a_platform_beside_other_images_is_refused(assert_refused: Assert) -> None:
    inner = replace(make_index(EVIL), platform="linux/arm64")
    arm = make_image("demo:1", platform="linux/arm64", seed=7)
    assert_refused(oci_layout([(make_index(arm, inner), ["demo:1"])]).tar(), "E_TYPE", runs=FEW)


def test_h265_platforms_that_look_alike_in_one_word_are_not_one(assert_refused: Assert) -> None:
    lying = EVIL.with_config(lambda c: c.update(architecture="arm64"))
    glued, apart = {"os": "linux", "architecture": "amd64/v1"}, {**AMD, "variant": "v1"}
    index = index_of((lying, glued), (lying, apart), (GOOD, AMD))
    assert_refused(oci_layout([(index, ["demo:1"])]).tar(), "E_TYPE", runs=FEW)


def test_h265_without_a_name_they_are_refused_as_well(assert_refused: Assert) -> None:
    assert_refused(oci_layout([(make_index(GOOD, EVIL), [])]).tar(), "E_TYPE", runs=FEW)


def test_h265_two_spellings_of_one_platform_under_one_name_are_refused(assert_refused: Assert) -> None:
    for other in (
        {**AMD, "architecture": "x86_64"},
        {**AMD, "variant": "v1"},
        {**AMD, "os.version": "7"},
        {**AMD, "os.features": ["x"]},
        {**AMD, "os": "macos"},
        {**AMD, "architecture": "arm64"},
    ):
        files = oci_files([GOOD, EVIL]).edited(
            "index.json", lambda v, other=other: v["manifests"][1].update(platform=other)
        )
        assert_refused(files.tar(), "E_NAME", runs=FEW)


def test_h265_one_image_in_two_forms_is_no_question(assert_accepted: Assert) -> None:
    plain = make_image("demo:1", layers=2)
    packed = replace(
        plain,
        layers=tuple(make_layer(layer.tar, "gzip") for layer in plain.layers),
        manifest=plain.with_manifest(
            lambda m: m.update(layers=[make_layer(layer.tar, "gzip").descriptor() for layer in plain.layers])
        ).manifest,
    )
    files = oci_layout([(make_index(plain, packed), ["demo:1"])])
    assert_accepted(files.tar(), names=["demo:1"], ids=[plain.image_id], runs=FEW)


def test_h265_platforms_that_differ_for_engines_are_several(assert_accepted: Assert) -> None:
    windows = [{"os": "windows", "architecture": "amd64", "os.version": version} for version in ("10.0.1", "10.0.2")]
    for one, other in (
        (AMD, {**AMD, "variant": "v2"}),
        (AMD, {"os": "linux", "architecture": "386"}),
        (
            {"os": "linux", "architecture": "arm", "variant": "v6"},
            {"os": "linux", "architecture": "arm", "variant": "v7"},
        ),
        (windows[0], windows[1]),
    ):
        images = [image.with_config(lambda c, p=p: c.update(p)) for image, p in ((GOOD, one), (EVIL, other))]
        index = index_of((images[0], one), (images[1], other))
        data = oci_layout([(index, ["demo:1"])]).tar()
        assert_accepted(data, names=["demo:1"], ids=[image.image_id for image in images], runs=FEW)


def test_h141_two_media_types_for_one_manifest_of_an_index_are_refused_in_either_order(assert_refused: Assert) -> None:
    index = make_index(make_image("demo:1", layers=1))
    value = json.loads(index.raw)
    (entry,) = value["manifests"]
    other = {**entry, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    for manifests in ([entry, other], [other, entry]):
        both = replace(index, raw=dumps({**value, "manifests": manifests}))
        assert_refused(oci_layout([(both, ["demo:1"])]).tar(), "E_TYPE", runs=FEW)
