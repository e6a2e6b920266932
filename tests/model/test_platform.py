"""Platforms: how users write them, and which ones are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar.errors import UsageError
from imgtar.model.platform import Platform, parse_platforms

VALID = {
    "linux/amd64": Platform("linux", "amd64"),
    "linux/arm64/v8": Platform("linux", "arm64", "v8"),
    "linux/arm/v7": Platform("linux", "arm", "v7"),
    "linux/x86_64": Platform("linux", "x86_64"),
    "Linux/AMD64": Platform("Linux", "AMD64"),
    "linux/riscv64/rva20u64": Platform("linux", "riscv64", "rva20u64"),
    "linux/arm64/v8.1": Platform("linux", "arm64", "v8.1"),
    "unknown/unknown": Platform("unknown", "unknown"),
}
INVALID = [
    "", "linux", "/", "linux/", "/amd64", "linux/amd64/", "linux//v8", "linux/arm/v7/x", "linux/amd 64",
    "linux/amd64\n", "linux/am\x1bd64", "linux/аmd64", "linux/amd64,linux/arm64", "linux/amd64/*", "lin١ux/amd64",
]  # fmt: skip
NORMALIZED = {
    "macos/arm64": "darwin/arm64",
    "MacOS/ARM64/V8": "darwin/arm64",
    "linux/x86_64": "linux/amd64",
    "linux/x86-64": "linux/amd64",
    "linux/amd64/v1": "linux/amd64",
    "linux/x86_64/v1": "linux/amd64",
    "linux/amd64/v2": "linux/amd64/v2",
    "linux/i386": "linux/386",
    "linux/i386/x": "linux/386",
    "linux/386": "linux/386",
    "linux/aarch64": "linux/arm64",
    "linux/aarch64/v8": "linux/arm64",
    "linux/arm64/8": "linux/arm64",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm64/v8.0": "linux/arm64",
    "linux/arm64/v8.1": "linux/arm64/v8.1",
    "linux/arm64/9": "linux/arm64/v9",
    "linux/arm64/9.0": "linux/arm64/v9",
    "linux/arm64/v9.0": "linux/arm64/v9",
    "linux/arm64/v9.1": "linux/arm64/v9.1",
    "linux/armhf": "linux/arm/v7",
    "linux/armhf/v6": "linux/arm/v7",
    "linux/armel": "linux/arm/v6",
    "linux/arm": "linux/arm/v7",
    "linux/arm/7": "linux/arm/v7",
    "linux/arm/5": "linux/arm/v5",
    "linux/arm/6": "linux/arm/v6",
    "linux/arm/8": "linux/arm/v8",
    "linux/s390x": "linux/s390x",
    "windows/amd64": "windows/amd64",
}


def _parsed_or_error(text: str) -> Platform | UsageError:
    try:
        return Platform.parse(text)
    except UsageError as error:
        return error


@pytest.mark.parametrize(("text", "expected"), VALID.items())
def test_a_platform_is_parsed_and_written_back_as_it_was_written(text: str, expected: Platform) -> None:
    assert Platform.parse(text) == expected
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", INVALID)
def test_what_is_not_a_platform_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a platform") as caught:
        Platform.parse(text)
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize(("text", "expected"), NORMALIZED.items())
def test_platforms_are_normalised_as_containerd_does(text: str, expected: str) -> None:
    assert str(Platform.parse(text).normalized()) == expected


def test_an_empty_operating_system_is_taken_as_linux() -> None:
    assert Platform("", "amd64").normalized() == Platform("linux", "amd64")


def test_normalising_keeps_version_and_features_of_the_operating_system() -> None:
    platform = Platform("Windows", "x86_64", "", "10.0.17763.1", ("win32k",))
    assert platform.normalized() == Platform("windows", "amd64", "", "10.0.17763.1", ("win32k",))


@pytest.mark.parametrize(
    ("image", "wanted", "expected"),
    [
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/aarch64", "linux/arm64", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm64/v9", "linux/arm64", False),
        ("linux/amd64/v2", "linux/amd64", False),
        ("linux/386", "linux/amd64", False),
        ("linux/arm/v8", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("unknown/unknown", "linux/amd64", False),
    ],
)
def test_a_platform_matches_only_the_same_one_in_another_spelling(image: str, wanted: str, expected: bool) -> None:
    assert Platform.parse(image).matches(Platform.parse(wanted)) is expected


def test_the_version_of_the_operating_system_does_not_decide_a_match() -> None:
    assert Platform("windows", "amd64", "", "10.0.17763.1").matches(Platform.parse("windows/amd64"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("unknown/unknown", True), ("linux/unknown", False), ("unknown/amd64", False), ("linux/amd64", False)],
)
def test_only_unknown_unknown_is_unknown(text: str, expected: bool) -> None:
    assert Platform.parse(text).is_unknown is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        (["linux/amd64"], ["linux/amd64"]),
        (["linux/amd64,linux/arm64"], ["linux/amd64", "linux/arm64"]),
        (["linux/amd64, linux/arm64", "linux/arm/v7"], ["linux/amd64", "linux/arm64", "linux/arm/v7"]),
        (["linux/arm64/v8", "linux/arm64", "linux/aarch64"], ["linux/arm64/v8"]),
    ],
)
def test_repeated_options_and_comma_lists_give_each_platform_once_in_order(
    values: list[str], expected: list[str]
) -> None:
    assert [str(platform) for platform in parse_platforms(values)] == expected


@pytest.mark.parametrize("value", ["", ",", "linux/amd64,", "linux/amd64,,linux/arm64", "linux/amd64;linux/arm64"])
def test_a_gap_in_a_list_of_platforms_is_a_usage_error(value: str) -> None:
    with pytest.raises(UsageError, match="is not a platform"):
        parse_platforms([value])


_parts = st.one_of(
    st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True),
    st.sampled_from(["linux", "macos", "amd64", "x86_64", "i386", "aarch64", "arm64", "arm", "armhf", "armel"]),
    st.sampled_from(["v1", "v8", "8", "v8.0", "v9.0", "9", "7", "6"]),
)


@given(st.lists(_parts, min_size=2, max_size=3))
def test_every_text_of_the_grammar_parses_to_itself_and_normalises_once(parts: list[str]) -> None:
    platform = Platform.parse("/".join(parts))
    assert str(platform) == "/".join(parts)
    normal = platform.normalized()
    assert normal.normalized() == normal
    assert platform.matches(normal)
    assert normal.matches(platform)


@given(st.one_of(st.text(), st.text("linuxarm64/v8,\n \x1b")))
def test_any_text_is_a_usage_error_or_a_platform_that_writes_back_to_it(text: str) -> None:
    platform = _parsed_or_error(text)
    if isinstance(platform, UsageError):
        assert platform.message.isprintable()
        return
    assert str(platform) == text
    assert text.isascii()
