"""The dependency resolver: all gaps and no false ones, from any number of archives in any order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar import frozen
from imgtar.errors import Conflict, DependencyMissing, NotFound, Refused
from imgtar.graph.catalog import Catalog, Draft, Root, Slot
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.plan import Plan
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import encode_manifest, parse_config
from tests.builders.images import Image, attestation, make_image, make_index, make_layer, random_layer
from tests.graph.shelf import Held, blobs_of, catalog_of, library_of, platforms, root_of

NOTHING = EmptyInventory()
BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)
TOOL = make_image("tool:1", 1, seed=3, base=BASE)


def plan_of(*catalogs: Catalog, held: Any = NOTHING, **policy: Any) -> Plan:
    return resolve(catalogs, held, Policy(**policy))


def lacking(plan: Plan) -> set[str]:
    return {str(gap.digest or gap.diff_id) for gap in plan.missing}


def written(plan: Plan) -> set[str]:
    return {str(write.digest) for write in plan.writes}


# -- what is needed --------------------------------------------------------------------------------------------------


def test_a_whole_archive_lacks_nothing_and_writes_every_blob_once() -> None:
    plan = plan_of(catalog_of(BASE, APP, TOOL))
    assert plan.complete
    blobs = blobs_of(BASE, APP, TOOL)
    assert written(plan) == set(blobs)
    assert len(plan.writes) == len(blobs)
    assert plan.bytes_to_write == sum(map(len, blobs.values()))


def test_documents_are_written_after_what_they_name() -> None:
    other = make_image("app:1", platform="linux/arm64", seed=77)
    plan = plan_of(catalog_of(root_of(make_index(APP, other), ["multi:1"]), blobs=blobs_of(make_index(APP, other))))
    place = {str(write.digest): at for at, write in enumerate(plan.writes)}
    for image in (APP, other):
        assert all(place[each] < place[image.digest] for each in image.document.below)


@given(st.data())
def test_the_gaps_are_exactly_what_nobody_has(data: Any) -> None:
    """Blobs are strewn over archives and the receiver; some get lost. The plan knows exactly which."""
    images = [BASE, APP, TOOL]
    everything = sorted(blobs_of(*images))
    count = data.draw(st.integers(1, 3))
    places = st.lists(st.integers(0, count), max_size=2)  # In which archives (or, the last one, with the receiver).
    where = {digest: set(data.draw(places)) for digest in everything}
    blobs = blobs_of(*images)
    catalogs = [
        catalog_of(
            *(root_of(image) for image in images) if n == 0 else (),
            blobs={digest: blobs[digest] for digest in everything if n in where[digest]},
            label=f"archive {n}",
        )
        for n in range(count)
    ]
    held = Held({digest: blobs[digest] for digest in everything if count in where[digest]})
    held.diff_ids = {layer.digest: layer.diff_id for image in images for layer in image.layers}
    plan = plan_of(*catalogs, held=held)

    needed: set[str] = set()
    for image in images:
        needed.add(image.digest)
        if where[image.digest]:  # Who has no manifest cannot know what it names.
            needed |= set(image.document.below)
    assert lacking(plan) == {digest for digest in needed if not where[digest]}
    assert written(plan) == {digest for digest in needed if where[digest] and count not in where[digest]}
    assert {str(digest) for digest in plan.reused} == {digest for digest in needed if count in where[digest]}
    assert plan.bytes_to_write == sum(len(blobs[digest]) for digest in written(plan))
    assert plan.bytes_reused == sum(len(blobs[str(digest)]) for digest in plan.reused)
    by_digest = {str(gap.digest): gap for gap in plan.missing}
    for digest, gap in by_digest.items():
        users = {i.names[0] for i in images if digest == i.digest or (where[i.digest] and digest in i.document.below)}
        assert set(gap.needed_by) == users
        assert gap.gap_class == "absent"
        assert gap.hint
    assert plan.complete is not bool(by_digest)


@given(st.permutations(range(3)), st.data())
def test_archives_complete_each_other_in_any_order(order: list[int], data: Any) -> None:
    blobs = blobs_of(BASE, APP, TOOL)
    owner = {digest: data.draw(st.integers(0, 2)) for digest in sorted(blobs)}
    roots = [[root_of(BASE)], [root_of(APP)], [root_of(TOOL)]]
    catalogs = [
        catalog_of(*roots[n], blobs={digest: raw for digest, raw in blobs.items() if owner[digest] == n}, label=str(n))
        for n in range(3)
    ]
    plan = plan_of(*(catalogs[n] for n in order))
    assert plan.complete
    assert written(plan) == set(blobs)
    for write in plan.writes:
        if write.kept is None:
            assert write.catalog is catalogs[owner[str(write.digest)]]
    assert {move.reference.familiar for move in plan.tags} == {"base:1", "app:1", "tool:1"}


def test_only_the_wanted_image_counts() -> None:
    broken = catalog_of(APP, TOOL, without=[TOOL.layers[2].digest])
    assert not plan_of(broken).complete
    assert plan_of(broken, select=("app:1",)).complete


@pytest.mark.parametrize("kind", ["config", "manifest", "layer"])
def test_a_gap_says_what_it_is_where_it_was_expected_and_who_needs_it(kind: str) -> None:
    digest = {"config": APP.image_id, "manifest": APP.digest, "layer": APP.layers[3].digest}[kind]
    (gap,) = plan_of(catalog_of(APP, without=[digest], label="usb/app.tar")).missing
    assert (gap.kind, str(gap.digest), gap.needed_by) == (kind, digest, ("app:1",))
    assert "usb/app.tar" in gap.expected_in
    assert gap.size == len(blobs_of(APP)[digest])
    assert set(gap.to_json()) >= {"kind", "digest", "diff_id", "needed_by", "expected_in", "class", "hint"}


def test_a_gap_that_two_images_share_is_told_once_with_both() -> None:
    (gap,) = plan_of(catalog_of(APP, TOOL, without=[BASE.layers[0].digest])).missing
    assert gap.needed_by == ("app:1", "tool:1")


def test_the_error_lists_every_gap_in_its_message_and_in_its_details() -> None:
    lost = [BASE.layers[0].digest, APP.layers[2].digest, TOOL.image_id]
    plan = plan_of(catalog_of(BASE, APP, TOOL, without=lost))
    with pytest.raises(DependencyMissing) as caught:
        plan.require_complete()
    assert {gap["digest"] for gap in caught.value.details["missing"]} == set(lost)  # type: ignore[attr-defined]
    assert all(digest in caught.value.message for digest in lost)


# -- what is held ----------------------------------------------------------------------------------------------------


def test_held_blobs_are_reused_and_not_written() -> None:
    plan = plan_of(catalog_of(APP), held=Held(images=[BASE]))
    shared = {layer.digest for layer in BASE.layers}
    assert {str(digest) for digest in plan.reused} == shared
    assert written(plan) == set(blobs_of(APP)) - shared


def test_an_image_is_present_only_when_the_receiver_names_it() -> None:
    (image,) = plan_of(catalog_of(APP), held=Held(images=[APP])).images
    assert image.state == "present"
    (image,) = plan_of(catalog_of(APP), held=Held(blobs_of(APP))).images
    assert image.state == "new", "all its blobs are there, but nobody would find it"


def test_a_damaged_blob_counts_as_missing_and_is_written_again_where_it_is_on_offer() -> None:
    victim = BASE.layers[1].digest
    held = Held(images=[BASE], damaged=[victim])
    assert victim in written(plan_of(catalog_of(APP), held=held))
    (gap,) = plan_of(catalog_of(APP, without=[victim]), held=held).missing
    assert (str(gap.digest), gap.gap_class) == (victim, "damaged")
    assert "repair" in gap.hint


def test_a_held_blob_of_another_size_than_promised_is_refused() -> None:
    def lie(manifest: Any) -> None:
        manifest["layers"][0]["size"] += 1

    liar = APP.with_manifest(lie)
    held = Held(images=[BASE])
    with pytest.raises(Refused) as caught:
        plan_of(catalog_of(liar), held=held)
    assert caught.value.code == "E_SIZE"


def test_a_reused_layer_must_be_proved_to_have_the_diff_id_that_the_new_config_claims() -> None:
    zipped = make_image("zipped:1", compression="gzip", seed=5)

    def swap(config: Any) -> None:
        config["rootfs"]["diff_ids"].reverse()

    liar = zipped.with_config(swap)
    assert plan_of(catalog_of(zipped), held=Held(images=[zipped])).complete
    with pytest.raises(Refused) as caught:
        plan_of(catalog_of(liar), held=Held(images=[zipped]))
    assert caught.value.code == "E_DIFFID"


def test_one_blob_with_two_claimed_diff_ids_is_refused() -> None:
    zipped = make_image("zipped:1", compression="gzip", seed=5)

    def swap(config: Any) -> None:
        config["rootfs"]["diff_ids"].reverse()

    with pytest.raises(Refused) as caught:
        plan_of(catalog_of(zipped, zipped.named("liar:1").with_config(swap)))
    assert caught.value.code == "E_DIFFID"


def test_a_foreign_layer_that_is_not_there_is_told_apart() -> None:
    layer = replace(random_layer(7), media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    image = make_image("windows:1", [layer])
    (gap,) = plan_of(catalog_of(image, without=[layer.digest])).missing
    assert gap.gap_class == "foreign"


# -- images without a manifest ---------------------------------------------------------------------------------------


def draft(image: Image, lost: set[int]) -> Root:
    """The image as a docker archive brings it, the layers at the places ``lost`` left out."""
    config = Descriptor(mediatype.IMAGE_CONFIG, Digest.parse(image.image_id), len(image.config))
    slots = tuple(
        Slot(
            Digest.parse(layer.diff_id),
            None if place in lost else Descriptor(layer.media_type, Digest.parse(layer.digest), len(layer.blob)),
            f"archive: {place}/layer.tar",
        )
        for place, layer in enumerate(image.layers)
    )
    names = root_of(image)
    return Root(None, names.labels, names.references, None, Draft(config, parse_config(image.config, "config"), slots))


def thin(image: Image, *lost: int) -> Catalog:
    carried = {image.image_id: image.config}
    carried |= {layer.digest: layer.blob for place, layer in enumerate(image.layers) if place not in lost}
    return catalog_of(draft(image, set(lost)), blobs=carried, form="docker")


def test_a_layer_that_a_docker_archive_left_out_is_found_with_the_receiver_by_its_diff_id() -> None:
    held_base = make_image("base:1", [make_layer(layer.tar, "gzip") for layer in BASE.layers])
    plan = plan_of(thin(APP, 0, 1), held=Held(images=[held_base]))
    assert plan.complete
    assert {str(d) for d in plan.reused} == {layer.digest for layer in held_base.layers}
    (image,) = plan.images
    assert str(image.image_id) == APP.image_id


def test_a_layer_that_a_docker_archive_left_out_is_found_in_another_archive() -> None:
    for order in itertools.permutations([thin(APP, 0, 1), catalog_of(BASE)]):
        plan = plan_of(*order)
        assert plan.complete
        assert {layer.digest for layer in APP.layers} <= written(plan)


def test_left_out_layers_that_nobody_has_are_told_by_diff_id_and_place() -> None:
    plan = plan_of(thin(APP, 0, 2))
    assert {(str(gap.diff_id), gap.digest, gap.expected_in) for gap in plan.missing} == {
        (APP.layers[0].diff_id, None, "archive: 0/layer.tar"),
        (APP.layers[2].diff_id, None, "archive: 2/layer.tar"),
    }
    assert all(gap.needed_by == ("app:1",) for gap in plan.missing)


def test_gaps_of_an_image_that_is_not_wanted_do_not_matter() -> None:
    catalogs = thin(APP, 0), catalog_of(make_image("other:1", seed=9))
    assert not plan_of(*catalogs).complete
    assert plan_of(*catalogs, select=("other:1",)).complete


def test_asking_for_an_image_whose_layers_nobody_has_tells_the_gaps() -> None:
    """It is there, only not whole: "no such image" would send people looking for a spelling mistake."""
    for catalogs in ([thin(APP, 0)], [thin(APP, 0), catalog_of(make_image("other:1", seed=9))]):
        plan = plan_of(*catalogs, select=("app:1",))
        assert lacking(plan) == {APP.layers[0].diff_id}


def test_a_settled_image_gets_the_manifest_that_docker_writes() -> None:
    plan = plan_of(thin(APP, 0, 1), held=Held(images=[BASE]))
    config = Descriptor(mediatype.IMAGE_CONFIG, Digest.parse(APP.image_id), len(APP.config))
    layers = tuple(Descriptor(mediatype.LAYER, Digest.parse(each.digest), len(each.blob)) for each in APP.layers)
    raw = encode_manifest(config, layers)
    assert str(plan.images[0].digest) == str(Digest.of(raw)) == APP.digest


# -- platforms -------------------------------------------------------------------------------------------------------

AMD = make_image((), seed=11)
ARM = make_image((), seed=12, platform="linux/arm64/v8")
RISC = make_image((), seed=13, platform="linux/riscv64")


def multi(*items: Any, sparse: tuple[Image, ...] = ()) -> Catalog:
    index = make_index(*items, sparse=sparse)
    return catalog_of(root_of(index, ["multi:1"]), blobs=blobs_of(index))


def test_a_platform_that_was_not_shipped_is_told_but_does_not_stop_the_others() -> None:
    plan = plan_of(multi(AMD, sparse=(ARM,)))
    assert plan.complete
    assert [str(image.digest) for image in plan.images] == [AMD.digest]
    (finding,) = plan.findings
    assert (finding.severity, finding.subject) == ("warning", ARM.digest)
    assert "linux/arm64" in finding.message


def test_asking_for_a_platform_that_was_not_shipped_is_a_gap() -> None:
    plan = plan_of(multi(AMD, sparse=(ARM,)), platforms=platforms("linux/arm64"))
    (gap,) = plan.missing
    assert (str(gap.digest), gap.gap_class, gap.kind) == (ARM.digest, "platform-not-shipped", "manifest")


def test_an_index_none_of_whose_platforms_was_shipped_is_all_gaps() -> None:
    plan = plan_of(multi(sparse=(AMD, ARM)))
    assert lacking(plan) == {AMD.digest, ARM.digest}
    assert {gap.gap_class for gap in plan.missing} == {"platform-not-shipped"}


def test_a_platform_of_which_only_the_manifest_was_shipped_is_not_shipped() -> None:
    index = make_index(AMD, ARM)
    blobs = blobs_of(index)
    for digest in ARM.document.below:
        del blobs[digest]
    plan = plan_of(catalog_of(root_of(index, ["multi:1"]), blobs=blobs))
    assert plan.complete
    assert [str(image.digest) for image in plan.images] == [AMD.digest]


def test_a_platform_that_is_half_there_is_a_gap_and_not_taken_for_left_out() -> None:
    index = make_index(AMD, ARM)
    plan = plan_of(catalog_of(root_of(index, ["m:1"]), blobs=blobs_of(index), without=[ARM.layers[0].digest]))
    assert lacking(plan) == {ARM.layers[0].digest}


def test_only_wanted_platforms_come_along_with_their_attestations() -> None:
    catalog = multi(AMD, ARM, RISC, attestation(AMD), attestation(ARM))
    plan = plan_of(catalog, platforms=platforms("linux/arm64", "linux/riscv64"))
    assert {str(image.digest) for image in plan.images} == {ARM.digest, RISC.digest}
    assert attestation(ARM).digest in written(plan)
    assert not {AMD.digest, attestation(AMD).digest} & written(plan)


def test_a_platform_that_nobody_offers_is_not_found_and_the_offers_are_named() -> None:
    with pytest.raises(NotFound) as caught:
        plan_of(multi(AMD, ARM), platforms=platforms("windows/amd64"))
    assert "linux/arm64/v8" in caught.value.hint
    assert "unknown" not in caught.value.hint


# -- parents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "missing", "severities"), [("require", 1, []), ("warn", 0, ["warning"]), ("ignore", 0, [])]
)
def test_a_declared_parent_that_is_nowhere(how: str, missing: int, severities: list[str]) -> None:
    plan = plan_of(catalog_of(root_of(APP, parent=BASE.image_id), blobs=blobs_of(APP)), parents=how)
    assert len(plan.missing) == missing
    assert [finding.severity for finding in plan.findings] == severities
    if missing:
        (gap,) = plan.missing
        assert (gap.kind, str(gap.digest)) == ("parent", BASE.image_id)
        assert "--parents warn" in gap.hint


def test_a_declared_parent_that_comes_along_or_is_held_is_fine() -> None:
    child = catalog_of(root_of(APP, parent=BASE.image_id), blobs=blobs_of(APP))
    assert plan_of(child, catalog_of(BASE)).complete
    assert plan_of(catalog_of(BASE), child).complete
    assert plan_of(child, held=Held(images=[BASE])).complete


def test_blobs_of_the_parent_without_its_image_are_not_the_parent() -> None:
    child = catalog_of(root_of(APP, parent=BASE.image_id), blobs=blobs_of(APP))
    assert not plan_of(child, held=Held(blobs_of(BASE))).complete


@pytest.mark.parametrize("how", ["require", "warn"])
def test_a_parent_whose_layers_the_child_does_not_begin_with_is_a_contradiction(how: str) -> None:
    stranger = make_image("stranger:1", seed=99)
    with pytest.raises(Refused) as caught:
        plan_of(
            catalog_of(stranger, root_of(APP, parent=stranger.image_id), blobs=blobs_of(stranger, APP)), parents=how
        )
    assert caught.value.code == "E_GRAPH"


def test_a_parent_in_the_config_informs_and_never_blocks() -> None:
    """buildah writes it always; no engine has ever asked for it."""

    def add(config: Any) -> None:
        config["parent"] = BASE.image_id

    plan = plan_of(catalog_of(APP.with_config(add)))
    assert plan.complete
    assert [finding.severity for finding in plan.findings] == ["info"]


# -- names -----------------------------------------------------------------------------------------------------------

NEW = make_image("app:1", seed=21)


def test_a_tag_that_has_another_image_moves_and_both_ids_are_told() -> None:
    (move,) = plan_of(catalog_of(NEW), held=Held(images=[APP])).tags
    assert move.moves
    assert (str(move.before), str(move.after)) == (APP.image_id, NEW.image_id)


def test_a_tag_that_has_the_same_image_does_not_move() -> None:
    (move,) = plan_of(catalog_of(APP), held=Held(images=[APP])).tags
    assert not move.moves
    assert plan_of(catalog_of(APP), held=Held(images=[APP]), no_clobber=True).complete


def test_no_clobber_refuses_a_move_and_lists_every_one() -> None:
    both = make_image(("app:1", "app:2"), seed=21)
    held = Held(images=[APP], names={"app:2": TOOL})
    with pytest.raises(Conflict) as caught:
        plan_of(catalog_of(both), held=held, no_clobber=True)
    assert {tag["name"] for tag in caught.value.details["tags"]} == {"app:1", "app:2"}  # type: ignore[attr-defined]
    assert plan_of(catalog_of(NEW), no_clobber=True).complete


@pytest.mark.parametrize("apart", [False, True], ids=["one archive", "two archives"])
def test_one_name_for_two_images_is_refused(apart: bool) -> None:
    catalogs = [catalog_of(APP), catalog_of(NEW)] if apart else [catalog_of(APP, NEW)]
    with pytest.raises(Refused) as caught:
        plan_of(*catalogs)
    assert caught.value.code == "E_NAME"
    assert set(caught.value.details["images"]) == {APP.image_id, NEW.image_id}  # type: ignore[call-overload]


def test_one_name_for_the_same_image_twice_is_one_name() -> None:
    plan = plan_of(catalog_of(APP), catalog_of(APP))
    assert [move.reference.familiar for move in plan.tags] == ["app:1"]
    assert len(plan.roots) == len({image.digest for image in plan.images}) == 1


def test_one_name_for_two_platforms_of_an_image_is_fine() -> None:
    assert plan_of(catalog_of(AMD.named("app:1"), ARM.named("app:1"))).complete


def test_one_name_for_one_platform_under_two_spellings_is_refused() -> None:
    other = make_image("app:1", seed=30, platform="linux/arm64")
    with pytest.raises(Refused) as caught:
        plan_of(catalog_of(ARM.named("app:1"), other))
    assert caught.value.code == "E_NAME"


def test_two_tags_of_different_repositories_are_two_names() -> None:
    plan = plan_of(catalog_of(APP, NEW.named("else:1")))
    assert {move.reference.familiar for move in plan.tags} == {"app:1", "else:1"}


@given(st.lists(st.sampled_from(["app:1", "app:2", "x.example/app:1", "other:1"]), unique=True, max_size=4))
def test_every_name_of_an_image_becomes_one_tag(names: list[str]) -> None:
    plan = plan_of(catalog_of(make_image(tuple(names))))
    assert sorted(move.reference.familiar for move in plan.tags) == sorted(names)
    assert all(move.before is None and str(move.after) == make_image().image_id for move in plan.tags)


def test_an_unsupported_digest_algorithm_is_refused_by_name() -> None:
    def lie(manifest: Any) -> None:
        manifest["layers"][0]["digest"] = "blake3:" + "a" * 64

    with pytest.raises(Refused) as caught:
        plan_of(catalog_of(APP.with_manifest(lie)))
    assert caught.value.code == "E_DIGEST"
    assert "blake3" in caught.value.message


def test_a_size_that_the_archive_contradicts_is_refused_before_anything_is_read() -> None:
    catalog = catalog_of(APP)
    lying = frozen.replace(catalog, offers={**dict.fromkeys(catalog.offers, 1)})  # type: ignore[dict-item]
    with pytest.raises(Refused) as caught:
        plan_of(lying)
    assert caught.value.code == "E_SIZE"


def test_an_embedded_document_needs_no_blob() -> None:
    import base64

    def embed(manifest: Any) -> None:
        manifest["config"]["data"] = base64.b64encode(APP.config).decode()

    image = APP.with_manifest(embed)
    plan = plan_of(catalog_of(image, without=[image.image_id]))
    assert plan.complete
    (write,) = [write for write in plan.writes if str(write.digest) == image.image_id]
    assert write.kept == APP.config


def test_the_library_helper_of_these_tests_obeys_the_cap() -> None:
    descriptor = Descriptor(mediatype.IMAGE_CONFIG, Digest.parse(APP.image_id), len(APP.config))
    assert library_of(blobs_of(APP)).raw(descriptor) == APP.config
