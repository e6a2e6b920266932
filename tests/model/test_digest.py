"""Digests: what is one, what is refused, and what may become a path."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar.errors import Refused
from imgtar.model.digest import EMPTY_JSON, Digest

HEX = "589f0d58b9053a4ff7329b8fdb4f9dd120e29354c086ad0b3b10733f6cfd6de3"

SUPPORTED = [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"]
WELL_FORMED_BUT_NOT_SUPPORTED = [
    f"blake3:{HEX}",
    f"sha384:{HEX[:32]}{HEX}",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
    "a.b_c-d+e:ABC=_-",
]
INVALID = {
    "empty": "",
    "colon alone": ":",
    "no algorithm": f":{HEX}",
    "no encoded part": "sha256:",
    "no colon": HEX,
    "parent directories": "sha256:../../../outside",
    "two dots": "sha256:..",
    "slash": "sha256:a/b",
    "parent directory in front": f"../sha256:{HEX}",
    "uppercase hex": f"sha256:{HEX.upper()}",
    "mixed case hex": f"sha256:A{HEX[1:]}",
    "uppercase sha512": f"sha512:{HEX}{HEX}".upper().replace("SHA512", "sha512"),
    "uppercase algorithm": f"SHA256:{HEX}",
    "63 digits": f"sha256:{HEX[1:]}",
    "65 digits": f"sha256:{HEX}0",
    "128 digits": f"sha256:{HEX}{HEX}",
    "sha512 of 64 digits": f"sha512:{HEX}",
    "not hex": f"sha256:g{HEX[1:]}",
    "newline at the end": f"sha256:{HEX}\n",
    "newline at the end of another algorithm": "md5:00\n",
    "carriage return": f"sha256:{HEX}\r",
    "blank in front": f" sha256:{HEX}",
    "blank behind": f"sha256:{HEX} ",
    "NUL behind": f"sha256:{HEX}\0",
    "full-width digits": "sha256:" + "１" * 64,
    "arabic digits": "md5:" + "٣" * 32,
    "full-width algorithm": f"ｓha256:{HEX}",
    "two separators in the algorithm": "sha256++b64u:abc",
    "separator first": "+b64u:abc",
    "separator last": "sha256+:abc",
    "two colons": f"sha256:sha256:{HEX}",
    "lone surrogate": "sha256:\udcff",
}


def _parsed_or_refused(text: str) -> Digest | Refused:
    try:
        return Digest.parse(text)
    except Refused as refused:
        return refused


@pytest.mark.parametrize("text", SUPPORTED)
def test_a_supported_digest_is_parsed_and_written_back_to_the_letter(text: str) -> None:
    digest = Digest.parse(text)
    assert str(digest) == text
    assert digest.supported
    assert digest.path == text.replace(":", "/")
    assert digest.short == "589f0d58b905"


@pytest.mark.parametrize("text", WELL_FORMED_BUT_NOT_SUPPORTED)
def test_another_algorithm_is_a_digest_but_has_neither_path_nor_hasher(text: str) -> None:
    digest = Digest.parse(text)
    assert str(digest) == text
    assert not digest.supported
    for use in (lambda: digest.path, digest.hasher):
        with pytest.raises(Refused, match="algorithm not supported") as caught:
            use()
        assert caught.value.code == "E_DIGEST"


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        Digest.parse(text)
    assert caught.value.code == "E_DIGEST"


def test_the_message_of_a_refusal_shows_no_raw_control_characters() -> None:
    with pytest.raises(Refused) as caught:
        Digest.parse("sha256:\x1b[2J\u202e")
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "digest",
    [Digest("sha256", "../../outside"), Digest("sha256", HEX + "\n"), Digest("..", HEX), Digest("sha512", HEX)],
)
def test_even_a_digest_that_was_never_parsed_gives_no_path_outside_the_blobs(digest: Digest) -> None:
    with pytest.raises(Refused) as caught:
        _ = digest.path
    assert caught.value.code == "E_DIGEST"


def test_the_digest_of_bytes_is_their_hash() -> None:
    assert str(Digest.of(b"layer-a")) == f"sha256:{HEX}"
    assert Digest.of(b"{}") == EMPTY_JSON
    assert Digest.of(b"x", "sha512") == Digest("sha512", hashlib.sha512(b"x").hexdigest())
    assert Digest.from_hex(HEX) == Digest.parse(f"sha256:{HEX}")
    assert Digest.from_hex(HEX + HEX, "sha512") == Digest.parse(f"sha512:{HEX}{HEX}")


def test_the_digest_of_bytes_by_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(Refused, match="algorithm not supported"):
        Digest.of(b"x", "md5")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_each_hasher_is_new_and_computes_its_own_algorithm(algorithm: str) -> None:
    digest = Digest.of(b"ab", algorithm)
    digest.hasher().update(b"something else")
    hasher = digest.hasher()
    hasher.update(b"a")
    hasher.update(memoryview(b"b"))
    assert Digest.from_hex(hasher.hexdigest(), algorithm) == digest


def test_digests_are_keys_and_sort_by_algorithm_then_value() -> None:
    texts = [f"sha256:{'b' * 64}", f"sha512:{'0' * 128}", f"sha256:{'a' * 64}"]
    assert [str(digest) for digest in sorted(map(Digest.parse, texts))] == sorted(texts)
    assert len({Digest.parse(texts[0]), Digest.parse(texts[0])}) == 1


def test_a_digest_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EMPTY_JSON.encoded = HEX  # type: ignore[misc]


@given(st.from_regex(r"[a-z0-9]+([+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+", fullmatch=True))
def test_every_text_of_the_grammar_with_an_unregistered_algorithm_parses_to_itself(text: str) -> None:
    if text.startswith(("sha256:", "sha512:")):
        text = "x" + text
    assert str(Digest.parse(text)) == text


@given(st.binary())
def test_every_computed_digest_parses_to_itself(data: bytes) -> None:
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(data, algorithm)
        assert Digest.parse(str(digest)) == digest


@given(st.one_of(st.text(), st.text("sha256:./\nAf0", max_size=80), st.builds("sha256:{}".format, st.text("0aF/.\n"))))
def test_any_text_is_refused_or_parses_to_itself_and_its_path_has_two_plain_parts(text: str) -> None:
    digest = _parsed_or_refused(text)
    if isinstance(digest, Refused):
        assert digest.code == "E_DIGEST"
        return
    assert str(digest) == text
    if digest.supported:
        assert re.fullmatch(r"sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128}", digest.path)
