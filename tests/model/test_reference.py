"""References: Docker's reading of names, and what must never pass as one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgtar.errors import Refused, UsageError
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference, parse_user_reference

HEX = "589f0d58b9053a4ff7329b8fdb4f9dd120e29354c086ad0b3b10733f6cfd6de3"
AT = f"@sha256:{HEX}"

VALID = {
    # text: (full, familiar)
    "busybox": ("docker.io/library/busybox", "busybox"),
    "busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "library/busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "docker.io/busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "docker.io/library/busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "index.docker.io/busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "index.docker.io/library/busybox:1": ("docker.io/library/busybox:1", "busybox:1"),
    "acme/app:1": ("docker.io/acme/app:1", "acme/app:1"),
    "docker.io/library/a/b:1": ("docker.io/library/a/b:1", "library/a/b:1"),
    "library/a/b:1": ("docker.io/library/a/b:1", "library/a/b:1"),
    "localhost": ("docker.io/library/localhost", "localhost"),
    "localhost:5000": ("docker.io/library/localhost:5000", "localhost:5000"),
    "localhost/app": ("localhost/app", "localhost/app"),
    "localhost:5000/app:1": ("localhost:5000/app:1", "localhost:5000/app:1"),
    "reg:5000/app": ("reg:5000/app", "reg:5000/app"),
    "reg.test/library/app": ("reg.test/library/app", "reg.test/library/app"),
    "Foo/bar": ("Foo/bar", "Foo/bar"),
    "127.0.0.1:5000/a/b": ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
    "[2001:db8::1]/app": ("[2001:db8::1]/app", "[2001:db8::1]/app"),
    "[::1]:5000/app:1": ("[::1]:5000/app:1", "[::1]:5000/app:1"),
    "xn--n3h.example/app": ("xn--n3h.example/app", "xn--n3h.example/app"),
    "a.b": ("docker.io/library/a.b", "a.b"),
    "a_b__c--d/e.f---g:_x.-Y": ("docker.io/a_b__c--d/e.f---g:_x.-Y", "a_b__c--d/e.f---g:_x.-Y"),
    "app" + AT: (f"docker.io/library/app{AT}", "app" + AT),
    "app:1" + AT: (f"docker.io/library/app:1{AT}", f"app:1{AT}"),
    "docker.io/localhost/app:1": ("docker.io/localhost/app:1", "docker.io/localhost/app:1"),
    "docker.io/reg.test/app:1": ("docker.io/reg.test/app:1", "docker.io/reg.test/app:1"),
    "app:" + "t" * 128: ("docker.io/library/app:" + "t" * 128, "app:" + "t" * 128),
    "a/" + "b" * 253: ("docker.io/a/" + "b" * 253, "a/" + "b" * 253),
    "b" * 247: ("docker.io/library/" + "b" * 247, "b" * 247),
    f"reg.test/{HEX}:1": (f"reg.test/{HEX}:1", f"reg.test/{HEX}:1"),
    "sha256/app": ("docker.io/sha256/app", "sha256/app"),
    "reg.test/sha256:1": ("reg.test/sha256:1", "reg.test/sha256:1"),
    "sha512:1": ("docker.io/library/sha512:1", "sha512:1"),
    f"{HEX[1:]}:1": (f"docker.io/library/{HEX[1:]}:1", f"{HEX[1:]}:1"),
}

INVALID = {
    "": "there is no repository name",
    ":": "there is no repository name",
    ":1": "there is no repository name",
    "@": "there is no repository name",
    AT: "there is no repository name",
    "docker.io/": "there is no repository name",
    "docker.io/:1": "there is no repository name",
    "app:": "the tag is empty",
    "app:" + AT: "the tag is empty",
    "App": "must be lowercase",
    "acme/App:1": "must be lowercase",
    "reg.test/App": "must be lowercase",
    "app:" + "t" * 129: "the tag has 129 characters, more than 128",
    "a/" + "b" * 254: "the repository name has 256 characters, more than 255",
    "b" * 248: "the repository name has 256 characters, more than 255",
    "a" * 300: "more than 255",
    "a//b": "a part of the repository name is empty",
    "/abs:1": "a part of the repository name is empty",
    "a/": "a part of the repository name is empty",
    "a:b:c": '"b:c" is not a tag',
    "app:-x": "is not a tag",
    "app:.x": "is not a tag",
    "app:a/b": '"app:a" is not a registry host',
    "acme/app:a/b": '"a/b" is not a tag',
    "app:1 ": "is not a tag",
    "app:1\n": "is not a tag",
    "app:\x1b[2Jx": "is not a tag",
    "app:1\r\nLoaded: safe:1": "is not a tag",
    "app:\x07": "is not a tag",
    "app:1\u202e": "is not a tag",
    "app:١": "is not a tag",
    "app\n": "is not allowed in a repository name",
    " app": "is not allowed in a repository name",
    "a b": "is not allowed in a repository name",
    "-x": "is not allowed in a repository name",
    "--help:1": "is not allowed in a repository name",
    "x-": "is not allowed in a repository name",
    "a..b": "is not allowed in a repository name",
    "a___b": "is not allowed in a repository name",
    "a._b": "is not allowed in a repository name",
    "\u0430pp": "is not allowed in a repository name",
    "a\u200bpp": "is not allowed in a repository name",
    "app\0": "is not allowed in a repository name",
    "..": "is not allowed in a repository name",
    "a/../b": "is not allowed in a repository name",
    "../x:1": '".." is not a registry host',
    "./x:1": '"." is not a registry host',
    "reg:/app": "is not a registry host",
    "reg:x/app": "is not a registry host",
    "reg:٣/app": "is not a registry host",
    "-reg.test/app": "is not a registry host",
    "reg..test/app": "is not a registry host",
    "a_b.test/app": "is not a registry host",
    "a_b__c--d.e/f---g:_x.-Y": "is not a registry host",
    "[::1/app": "is not a registry host",
    "[]:1/app": "is not a registry host",
    "https://reg.test/app": "is not a registry host",
    "app@": "is not a digest",
    "app@sha256:bad": "is not a digest",
    "app@latest": "is not a digest",
    f"app@sha256:{HEX.upper()}": "is not a digest",
    f"app{AT}\n": "is not a digest",
    f"app{AT}{AT}": "is not a digest",
    "app@md5:abc": "is not a digest that a name can carry",
    f"app@sha256+b64u:{'-' * 40}": "is not a digest that a name can carry",
    HEX: "image ID",
    f"{HEX}:1": "image ID",
    f"docker.io/library/{HEX}": "image ID",
    HEX + AT: "image ID",
    f"sha256:{HEX}": "digest algorithm",
    "sha256": "digest algorithm",
    "sha256:1": "digest algorithm",
    "docker.io/library/sha256:1": "digest algorithm",
    f"sha512:{HEX}{HEX}": "digest algorithm",
}


def _parsed_or_refused(text: str) -> Reference | Refused:
    try:
        return Reference.parse(text)
    except Refused as refused:
        return refused


@pytest.mark.parametrize("text", VALID)
def test_a_reference_has_one_full_and_one_familiar_form(text: str) -> None:
    full, familiar = VALID[text]
    reference = Reference.parse(text)
    assert reference.full == full
    assert reference.familiar == familiar
    assert str(reference) == familiar


@pytest.mark.parametrize("text", VALID)
def test_the_full_and_the_familiar_form_parse_to_the_same_reference(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(reference.full) == reference
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(("text", "reason"), INVALID.items())
def test_what_is_not_a_name_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        Reference.parse(text)
    assert caught.value.code == "E_NAME"
    assert reason in caught.value.message
    assert caught.value.message.isprintable()


def test_the_parts_of_a_reference_are_told_apart() -> None:
    reference = Reference.parse(f"reg.test:5000/acme/app:1.2{AT}")
    assert reference == Reference("reg.test:5000", "acme/app", "1.2", Digest("sha256", HEX))
    assert reference.repository == reference.familiar_repository == "reg.test:5000/acme/app"


def test_the_repository_is_the_name_without_tag_and_digest() -> None:
    reference = Reference.parse(f"app:1{AT}")
    assert reference.repository == "docker.io/library/app"
    assert reference.familiar_repository == "app"


@pytest.mark.parametrize(
    ("text", "expected"), [("app", "app:latest"), ("app:1", "app:1"), ("app" + AT, "app" + AT), (f"app:1{AT}",) * 2]
)
def test_latest_is_added_only_where_there_is_neither_tag_nor_digest(text: str, expected: str) -> None:
    assert str(Reference.parse(text).tagged()) == expected


def test_all_spellings_of_a_name_are_one_key() -> None:
    spellings = ["app", "app:latest", "library/app", "docker.io/app:latest", "index.docker.io/library/app"]
    assert len({Reference.parse(text).tagged() for text in spellings}) == 1


@pytest.mark.parametrize("algorithm", ["blake3", "sha384"])
def test_a_digest_by_another_algorithm_is_carried_but_not_supported(algorithm: str) -> None:
    reference = Reference.parse(f"app@{algorithm}:{HEX}")
    assert reference.familiar == f"app@{algorithm}:{HEX}"
    assert reference.digest is not None
    assert not reference.digest.supported


def test_a_wrong_name_that_a_user_typed_is_a_usage_error_with_the_same_words() -> None:
    with pytest.raises(UsageError, match="the repository name must be lowercase") as caught:
        parse_user_reference("App")
    assert caught.value.exit_code == 2
    assert not isinstance(caught.value, Refused)


def test_a_right_name_that_a_user_typed_is_parsed() -> None:
    assert parse_user_reference("acme/app:1") == Reference("docker.io", "acme/app", "1")


_label = st.from_regex(r"[A-Za-z0-9]{1,5}(-{1,2}[A-Za-z0-9]{1,3})?", fullmatch=True)
_host = st.one_of(
    st.just("localhost"),
    st.just("docker.io"),
    st.just("index.docker.io"),
    st.builds(lambda labels: ".".join(labels), st.lists(_label, min_size=2, max_size=4)),
    st.just("[2001:db8::1]"),
)
_domain = st.one_of(_host, st.builds("{}:{}".format, _host, st.integers(0, 65535)))
_component = st.one_of(
    st.from_regex(r"[a-z0-9]{1,6}(([._]|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True),
    st.sampled_from(["library", "localhost", "docker.io", "sha512"]),
)
_path = st.builds("/".join, st.lists(_component, min_size=1, max_size=4))
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
_digest = st.builds(lambda data: f"@{Digest.of(data)}", st.binary(max_size=8))


@given(
    _domain,
    _path.filter(lambda path: not path.endswith("sha256")),
    st.one_of(st.just(""), _tag.map(":{}".format)),
    st.one_of(st.just(""), _digest),
)
def test_every_name_of_the_grammar_parses_and_comes_back_from_both_of_its_forms(
    domain: str, path: str, tag: str, digest: str
) -> None:
    reference = Reference.parse(f"{domain}/{path}{tag}{digest}")
    assert reference.full.endswith(f"/{path}{tag}{digest}")
    assert Reference.parse(reference.full) == reference
    assert Reference.parse(reference.familiar).full == reference.full
    assert Reference.parse(reference.tagged().familiar) == reference.tagged()


@given(
    st.one_of(
        st.text(),
        st.text("aA0.:/@-_[]\n \x1b\u202e", max_size=30),
        st.builds("{}/{}:{}".format, st.text("aA.:[]-"), st.text("aA/._-"), st.text("a.-_\n")),
        st.builds("docker.io/{}".format, st.text("ab./:")),
    )
)
@example("docker.io/a.b/c")
@example("docker.io/localhost/c")
@example("library/library")
@example(f"docker.io/library/{HEX}")
def test_any_text_is_refused_or_parses_to_a_fixed_point(text: str) -> None:
    reference = _parsed_or_refused(text)
    if isinstance(reference, Refused):
        assert reference.code == "E_NAME"
        assert reference.message.isprintable()
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.full) == reference
    assert reference.full.isascii()
    assert reference.full.isprintable()
    assert " " not in reference.full
