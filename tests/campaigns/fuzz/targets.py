"""What is fuzzed: functions from bytes to nothing, each with a promise that must hold for any bytes at all.

Only errors of imgtar's own tree may come out of the code under test; the rest of a promise is asserted. ``SEEDS`` has
the corpus that each begins with. run.py drives them with atheris, test_fuzz.py with random changes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

from imgtar.blob.decompress import plain
from imgtar.blob.tar_names import Entry
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import FileStream, PipeStream
from imgtar.errors import ImgtarError, Refused
from imgtar.graph.listing import parse_listing
from imgtar.graph.thin import parse_thin
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import (
    parse_config,
    parse_docker_manifest,
    parse_index,
    parse_layout,
    parse_manifest,
    parse_repositories,
)
from imgtar.model.reference import Reference
from imgtar.model.strictjson import parse_json
from imgtar.ops.inspect import inspect_archive
from imgtar.ops.inventory import make_inventory
from imgtar.ops.verify import verify
from imgtar.store.store import Store
from tests.builders.rawtar import gnu_long, header, pax, resum
from tests.campaigns import independent
from tests.campaigns.specimens import APP, BASE, FAMILIES, GZIP, PLAIN, archive, status

__all__ = ["SEEDS", "TARGETS"]


class _Bytes:
    """A stream that gives its bytes in uneven pieces."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:
        return self._file.readinto(buffer[: 700 if len(buffer) > 512 else len(buffer)])


def _walk(reader: TarReader) -> tuple[list[tuple[object, ...]], list[Entry], str]:
    rows, entries, code = [], [], ""
    try:
        for entry in reader:
            problem = entry.problem.code if entry.problem else ""
            rows.append((entry.name, entry.kind, entry.size, entry.link, entry.header_offset, problem))
            entries.append(entry)
    except ImgtarError as error:
        status(error)
        code = error.code
    return rows, entries, code


def tar(data: bytes) -> None:
    """A file and a pipe read alike; what is read lies inside; what is accepted, Python's tarfile reads alike."""
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        reader = TarReader(FileStream(fd, len(data)))
        rows, entries, code = _walk(reader)
    finally:
        os.close(fd)
    piped, _, other = _walk(TarReader(PipeStream(_Bytes(data))))
    assert (rows, code) == (piped, other), "a file and a pipe are read differently"
    assert reader.offset <= len(data)
    assert reader.ended == (not code)
    for one, following in pairwise(entries):
        assert one.data_offset + one.size <= following.header_offset, "two entries share bytes"
    if code:
        return
    assert reader.offset == len(data)
    assert all(one.data_offset + one.size <= len(data) for one in entries)
    if any(one.problem for one in entries):
        return
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as theirs:
        files = [(one.offset_data, one.size) for one in theirs if one.isreg() and one.name.strip("/.")]
    # A directory may be marked by its slash alone; tarfile and imgtar agree on that as well.
    assert files == [(one.data_offset, one.size) for one in entries if one.kind.value == "file"], "tarfile reads others"


def summed_tar(data: bytes) -> None:
    """The same, with right checksums: else hardly any change gets past them."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    tar(b"".join(resum(one) if len(one) == 512 and one[257:262] == b"ustar" else one for one in blocks))


_DOCUMENTS: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda raw: parse_manifest(
        raw, Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(raw), len(raw)), "it"
    ),
    "index": lambda raw: parse_index(raw, "", "it"),
    "config": lambda raw: parse_config(raw, "it"),
    "docker": lambda raw: parse_docker_manifest(raw, "it"),
    "layout": lambda raw: parse_layout(raw, "it"),
    "repositories": lambda raw: parse_repositories(raw, "it"),
}


def documents(data: bytes) -> None:
    """Each parser, whichever document it is given, accepts or refuses; what is accepted is JSON for others, too."""
    for name, parse in _DOCUMENTS.items():
        try:
            parse(data)
        except Refused as error:
            status(error)
            continue
        assert isinstance(json.loads(data), (dict, list)), f"{name} accepts what is no document"


def strict_json(data: bytes) -> None:
    """What is accepted has the value that Python's reader sees, and a second reading gives it again."""
    try:
        value = parse_json(data, "it")
    except Refused as error:
        status(error)
        return
    assert repr(json.loads(data.decode("utf-8"))) == repr(value)
    again = json.dumps(value, ensure_ascii=False).encode()
    with contextlib.suppress(Refused):  # Written out, a number may be longer than what is accepted.
        assert repr(parse_json(again, "it")) == repr(value)


def reference(data: bytes) -> None:
    """A name that is accepted is the same name in each of its spellings."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        name = Reference.parse(text)
    except Refused as error:
        status(error)
        return
    assert Reference.parse(str(name)) == name
    assert Reference.parse(name.familiar) == name
    assert Reference.parse(name.full) == name
    assert text.isascii()


def compressed(data: bytes) -> None:
    """What is read out of a compressed stream is what the usual libraries read out of it."""
    source = plain(_Bytes(data))
    out, view = bytearray(), memoryview(bytearray(5000))
    try:
        while (count := source.readinto(view)) and len(out) < 1 << 22:
            out += view[:count]
    except Refused as error:
        status(error)
        return
    if len(out) < 1 << 22:
        usual = [content for content in (_usual(data), _usual(data.rstrip(b"\0"))) if content is not None]
        assert bytes(out) in (usual or [data]), "other libraries read other content"


def _usual(data: bytes) -> bytes | None:
    try:
        return independent.plain(data)
    except Exception:  # noqa: BLE001 - a refusal of whatever kind
        return None


def thin_record(data: bytes) -> None:
    """A record that is accepted says the same when it is written again."""
    try:
        record = parse_thin(data, "it")
    except Refused as error:
        status(error)
        return
    assert parse_thin(record.encode(), "it") == record


def inventory(data: bytes) -> None:
    """An inventory that is accepted says the same when it is written again."""
    try:
        listing = parse_listing(data, "it")
    except Refused as error:
        status(error)
        return
    again = parse_listing(listing.encode(), "it")
    assert again.encode() == listing.encode()


def summed_inventory(data: bytes) -> None:
    """The same, with a right check and a right root: else hardly any change gets past them."""
    inventory(data)
    for _ in range(2):
        head, _, body = data.partition(b"\n")
        try:
            value = json.loads(head)
            rest = {key: item for key, item in value.items() if key != "check"}
            whole = independent.compact(rest) + b"\n" + body
            data = independent.compact({**rest, "check": independent.sha256(whole)}) + b"\n" + body
            parse_listing(data, "it")
        except Refused as error:
            root = re.search("root is (sha256:[0-9a-f]{64})", error.message)
            if root is None:
                break
            data = independent.compact({**value, "root": root[1]}) + b"\n" + body
        except (ValueError, AttributeError, RecursionError):
            return
    inventory(data)


@cache
def _scratch() -> str:
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    fd, path = tempfile.mkstemp(prefix="imgtar-fuzz-", dir=where)
    os.close(fd)
    return path


def inspect(data: bytes) -> None:
    """Inspect and verify of a whole archive: what verify finds good, inspect shows."""
    path = Path(_scratch())
    path.write_bytes(data)
    code = 0
    try:
        inspect_archive(str(path))
    except ImgtarError as error:
        code = status(error)
    verdict = verify([str(path)], jobs=1)
    assert not verdict.ok or not code, f"inspect refuses with {code} what verify finds good"
    assert verdict.ok or verdict.exit_code in (3, 4, 5), verdict.findings


def _inventory() -> bytes:
    path = Path(_scratch())
    path.write_bytes(archive("hybrid"))
    return make_inventory(str(path), Store(f"{path}.store")).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tar": tar,
    "summed_tar": summed_tar,
    "documents": documents,
    "strict_json": strict_json,
    "reference": reference,
    "compressed": compressed,
    "thin_record": thin_record,
    "inventory": inventory,
    "summed_inventory": summed_inventory,
    "inspect": inspect,
}


def _tars() -> list[bytes]:
    odd = pax((b"path", b"a/b"), (b"size", b"3")) + header(b"x", size=3) + b"abc" + bytes(509)
    odd += gnu_long(b"long/" * 30 + b"name") + header(b"y", kind=b"2", link=b"a/b", magic=b"ustar  \0") + bytes(1024)
    return [odd, *(archive(name) for name in ("docker", "v1", "oci"))]


def _jsons() -> list[bytes]:
    whole = independent.members(archive("thin")) + independent.members(archive("v1"))
    return [data for name, _, _, data in whole if name.endswith("json")] + [GZIP.manifest, PLAIN.config, APP.config]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "tar": _tars,
    "summed_tar": _tars,
    "documents": _jsons,
    "strict_json": lambda: [*_jsons(), b'{"a":[1.5e3,-2,null,true,"\\u00e9\\ud83d\\ude00"]}'],
    "reference": lambda: [
        text.encode()
        for text in ("app", "app:1", "localhost:5000/a/b_c:v1.0", f"ghcr.io/x/y@{BASE.digest}", "docker.io/library/a")
    ],
    "compressed": lambda: [gzip.compress(b"abc" * 50, mtime=0), *(archive(name) for name in FAMILIES if "." in name)],
    "thin_record": lambda: [data for name, _, _, data in independent.members(archive("thin")) if name == "imgtar.json"],
    "inventory": lambda: [_inventory()],
    "summed_inventory": lambda: [_inventory()],
    "inspect": lambda: [archive(name) for name in FAMILIES],
}
assert SEEDS.keys() == TARGETS.keys()
