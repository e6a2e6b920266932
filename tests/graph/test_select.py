"""Which images a name, a repository or an ID means, and how names change on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar.errors import NotFound, UsageError
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.select import Candidate, matches_identity, rename, select, subject_of
from imgtar.model.digest import Digest
from tests.builders.images import Document, dumps, make_image, make_index, sha256
from tests.graph.shelf import blobs_of, catalog_of, root_of

APP1 = make_image("app:1", seed=1)
APP2 = make_image("app:2", seed=2)
OTHER = make_image("registry.example:5000/team/app:1", seed=3)
BARE = make_image((), seed=4)
MULTI = make_index(make_image(seed=5), make_image(seed=6, platform="linux/arm64"))


def candidates(*roots: Any) -> list[Candidate]:
    items = roots or (APP1, APP2, OTHER, BARE, root_of(MULTI, ["multi:1"]))
    blobs = blobs_of(APP1, APP2, OTHER, BARE, MULTI, *(root for root in roots if hasattr(root, "document")))
    return grow_candidates([catalog_of(*items, blobs=blobs)], EmptyInventory())[0]


def chosen(*wanted: str, among: Sequence[Candidate] | None = None) -> list[tuple[str, list[str]]]:
    """Digest and remaining names of each one selected."""
    found = select(candidates() if among is None else among, wanted)
    return [(str(one.node.descriptor.digest), [r.familiar for r in one.root.references]) for one in found]


def test_nothing_named_means_everything() -> None:
    assert len(chosen()) == 5


@pytest.mark.parametrize("text", ["app:1", "docker.io/library/app:1", "library/app:1", "index.docker.io/app:1"])
def test_every_spelling_of_a_name_means_the_same_image(text: str) -> None:
    assert chosen(text) == [(APP1.digest, ["app:1"])]


def test_a_name_without_a_tag_means_all_tags_of_that_repository() -> None:
    assert chosen("app") == [(APP1.digest, ["app:1"]), (APP2.digest, ["app:2"])]
    assert chosen("registry.example:5000/team/app") == [(OTHER.digest, ["registry.example:5000/team/app:1"])]


def test_only_the_names_that_were_asked_for_stay() -> None:
    twice = candidates(make_image(("app:1", "app:latest", "else:1")))
    assert [names for _, names in chosen("app:latest", among=twice)] == [["app:latest"]]
    assert [names for _, names in chosen("app", among=twice)] == [["app:1", "app:latest"]]
    assert [names for _, names in chosen("app:1", "else:1", among=twice)] == [["app:1", "else:1"]]


@pytest.mark.parametrize("image", [APP1, BARE], ids=["named", "bare"])
@pytest.mark.parametrize("of", ["image_id", "digest"])
def test_an_id_a_digest_and_a_prefix_mean_the_image_without_its_names(image: Any, of: str) -> None:
    identity = getattr(image, of)
    bare = identity.partition(":")[2]
    for text in (identity, bare, bare[:12], f"sha256:{bare[:20]}"):
        assert chosen(text) == [(image.digest, [])]


def test_a_prefix_that_fits_two_images_is_ambiguous() -> None:
    found: dict[str, Any] = {}
    for seed in range(1000, 100_000):
        image = make_image((), 0, seed=seed)
        twin = found.setdefault(image.image_id[7:11], image)
        if twin is not image:
            break
    with pytest.raises(UsageError, match="more than one"):
        select(candidates(image, twin), [image.image_id[7:11]])
    longer = next(n for n in range(12, 72) if image.image_id[:n] != twin.image_id[:n])
    assert chosen(image.image_id[:longer], among=candidates(image, twin)) == [(image.digest, [])]


def test_a_name_goes_before_an_id_that_looks_like_it() -> None:
    word = APP1.image_id[7:15]
    named = make_image(f"{word}:latest", seed=8)
    assert chosen(word, among=candidates(APP1, named)) == [(named.digest, [f"{word}:latest"])]


def test_three_digits_are_no_id() -> None:
    with pytest.raises(NotFound):
        chosen(APP1.image_id[7:10])


def test_what_is_not_there_is_said_with_what_is_there() -> None:
    with pytest.raises(NotFound) as caught:
        chosen("nobody:1")
    assert "nobody:1" in caught.value.message
    assert "app:1" in caught.value.hint


def test_one_missing_name_among_several_is_an_error() -> None:
    with pytest.raises(NotFound, match="nobody"):
        chosen("app:1", "nobody:1")


def test_a_name_with_a_digest_means_that_image_only() -> None:
    assert chosen(f"app@{APP1.digest}")[0][0] == APP1.digest
    assert chosen(f"app:1@{APP1.digest}") == [(APP1.digest, ["app:1"])]
    with pytest.raises(NotFound):
        chosen(f"app:1@{APP2.digest}")


def test_an_index_is_meant_by_its_name_and_by_its_digest() -> None:
    assert chosen("multi:1") == [(MULTI.digest, ["multi:1"])]
    assert chosen(MULTI.digest) == [(MULTI.digest, [])]


def test_a_bare_label_is_meant_by_its_own_word() -> None:
    labelled = candidates(root_of(APP1, [], labels=["v1"]), root_of(APP2, [], labels=["v2"]))
    assert chosen("v2", among=labelled) == [(APP2.digest, [])]


def referrer(subject: str, size: int = 1, **extra: Any) -> Document:
    config = b"{}"
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/x.signature",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(config), "size": 2},
            "layers": [],
            "subject": {"mediaType": "application/x", "digest": subject, "size": size},
            **extra,
        }
    )
    return Document(raw, "application/vnd.oci.image.manifest.v1+json", None, {}, {sha256(config): config})


def test_referrers_come_along_with_what_they_refer_to_and_their_own_referrers_too() -> None:
    signature = referrer(APP1.digest)
    on_signature = referrer(signature.digest)
    elsewhere = referrer(APP2.digest)
    catalog = catalog_of(
        APP1,
        APP2,
        *(root_of(each, []) for each in (on_signature, signature, elsewhere)),
        blobs=blobs_of(APP1, APP2, signature, on_signature, elsewhere),
    )
    found = select(grow_candidates([catalog], EmptyInventory())[0], ["app:1"])
    assert {str(one.node.descriptor.digest) for one in found} == {APP1.digest, signature.digest, on_signature.digest}


def test_a_referrers_tag_says_what_it_refers_to() -> None:
    label = APP1.digest.replace(":", "-") + ".sig"
    thing = make_index(extra={"artifactType": "application/x.sig"})
    (one,) = candidates_of(thing, [label])
    assert subject_of(one) == Digest.parse(APP1.digest)
    (one,) = candidates_of(thing, ["v1"])
    assert subject_of(one) is None


def candidates_of(item: Document, labels: list[str]) -> list[Candidate]:
    return grow_candidates([catalog_of(root_of(item, [], labels=labels), blobs=blobs_of(item))], EmptyInventory())[0]


# -- renaming --------------------------------------------------------------------------------------------------------


def renamed(*renames: tuple[str | None, str], among: Sequence[Candidate] | None = None) -> dict[str, list[str]]:
    result = rename(candidates() if among is None else among, renames)
    return {str(one.node.descriptor.digest): [r.familiar for r in one.root.references] for one in result}


def test_old_equals_new_replaces_one_name_and_leaves_the_others() -> None:
    among = candidates(make_image(("app:1", "keep:1")), APP2)
    assert list(renamed(("app:1", "mine:9"), among=among).values()) == [["keep:1", "mine:9"], ["app:2"]]


@pytest.mark.parametrize("old", [BARE.image_id, BARE.digest, BARE.image_id[7:20]])
def test_an_id_gets_a_name_added(old: str) -> None:
    assert renamed((old, "mine:1"))[BARE.digest] == ["mine:1"]
    assert renamed((APP1.image_id, "mine:1"))[APP1.digest] == ["app:1", "mine:1"]


def test_a_new_name_alone_needs_exactly_one_image() -> None:
    assert renamed((None, "mine:1"), among=candidates(BARE)) == {BARE.digest: ["mine:1"]}
    with pytest.raises(UsageError, match="exactly one"):
        renamed((None, "mine:1"), among=candidates(APP1, APP2))
    with pytest.raises(UsageError, match="exactly one"):
        rename([], [(None, "mine:1")])


def test_a_referrer_beside_the_one_image_does_not_make_it_two() -> None:
    signature = referrer(BARE.digest)
    catalog = catalog_of(BARE, root_of(signature, []), blobs=blobs_of(BARE, signature))
    among = grow_candidates([catalog], EmptyInventory())[0]
    assert renamed((None, "mine:1"), among=among)[BARE.digest] == ["mine:1"]


@pytest.mark.parametrize(
    ("labels", "old", "new", "expected"),
    [
        (["1"], None, "app", "app:1"),
        (["1"], None, "app:2", "app:2"),
        (["1"], "1", "app", "app:1"),
        (["1"], "app:1", "mine:2", "mine:2"),
        (["1"], "1", "mine:2", "mine:2"),
        (["some word"], None, "app", "app:latest"),
        ([], None, "app", "app:latest"),
    ],
)
def test_a_bare_tag_is_given_a_repository(labels: list[str], old: str | None, new: str, expected: str) -> None:
    among = candidates(root_of(APP1, [], labels=labels))
    assert renamed((old, new), among=among) == {APP1.digest: [expected]}


def test_a_new_name_without_a_tag_keeps_the_old_tag() -> None:
    assert renamed(("app:2", "mine"))[APP2.digest] == ["mine:2"]


def test_renames_are_carried_out_one_after_the_other() -> None:
    assert renamed(("app:1", "mid:1"), ("mid:1", "end:1"))[APP1.digest] == ["end:1"]


@pytest.mark.parametrize("new", ["UPPER:1", "a b", "x:y:z", "", "-", "app:", f"{'a' * 64}"])
def test_a_new_name_that_is_none_is_the_users_mistake(new: str) -> None:
    with pytest.raises(UsageError):
        renamed(("app:1", new))


def test_a_new_name_with_a_digest_is_refused() -> None:
    with pytest.raises(UsageError, match="digest"):
        renamed(("app:1", f"mine@{APP1.digest}"))


def test_an_old_name_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="nobody"):
        renamed(("nobody:1", "mine:1"))


# -- identities ------------------------------------------------------------------------------------------------------

digests = st.binary(max_size=8).map(Digest.of)


@given(st.lists(digests, max_size=5), digests, st.integers(4, 64), st.booleans())
def test_a_prefix_of_four_digits_or_more_matches_exactly_what_begins_with_it(
    others: list[Digest], one: Digest, length: int, with_algorithm: bool
) -> None:
    prefix = one.encoded[:length]
    text = f"sha256:{prefix}" if with_algorithm else prefix
    assert matches_identity(text, [one])
    assert matches_identity(text, others) == any(each.encoded.startswith(prefix) for each in others)


@given(st.text(max_size=70))
def test_no_text_whatever_breaks_the_matching(text: str) -> None:
    if matches_identity(text, [Digest.of(b"")]):
        assert set(text.rpartition(":")[2]) <= set("0123456789abcdef")
