"""What is this? Decided by bytes and by what is inside, never by the file's name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from imgtar.blob.compression import foreign_compression

__all__ = ["describe_content", "describe_head", "is_tar_head", "looks_like_other"]

HEAD = 1024
"""Bytes to look at."""

_MAGICS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x7fELF", "an ELF program", "give the image archive, not the program"),
    (0, b"PK\x03\x04", "a zip file", "unpack it first: image archives are tars"),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"hsqs", "a squashfs image", "imgtar reads container image archives, not file system images"),
    (0, b"QFI\xfb", "a qcow2 disk image", "imgtar reads container image archives, not virtual machine disks"),
    (0, b"070701", "a cpio archive", "image archives are tars"),
    (0, b"070707", "a cpio archive", "image archives are tars"),
    (0, b"!<arch>\n", "an ar archive or a Debian package", "image archives are tars"),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "image archives are tars"),
    (0, b"SIMPLE  =", "a FITS file", ""),
)
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


def is_tar_head(head: bytes) -> bool:
    """Whether the first block can be a tar header: the checksum decides, since old tars have no magic."""
    if len(head) < 512:
        return False
    field = head[148:156].strip(b" \0")
    try:
        stored = int(field, 8)
    except ValueError:
        return False
    return stored == sum(head[:148]) + 8 * 0x20 + sum(head[156:512])


def describe_head(head: bytes) -> tuple[str, str]:
    """Return what the first bytes of something that is no tar look like, and a hint."""
    if not head:
        return "the file is empty", "the copy failed or was never made: make the archive again"
    if not any(head):
        return "this holds only zeros, not an image archive", "the copy failed: copy the archive again"
    foreign = foreign_compression(head)
    for offset, magic, name, hint in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return f"this is {name}, not an image archive", hint
    if foreign is not None:
        return (
            f"this is compressed with {foreign}, which imgtar does not read",
            "decompress it first, or use gzip, zstd, bzip2 or xz",
        )
    if _HTML.match(head):
        return (
            "this is an HTML page, not an image archive",
            "the download saved an error or login page: download it again",
        )
    if head.startswith(b'{"schema":"imgtar.inventory/'):
        return (
            "this is an inventory of a receiver, not an image archive",
            "give it to imgtar save --base, or to imgtar verify --against",
        )
    if head.lstrip()[:1] in (b"{", b"["):
        return "this is a JSON document, not an image archive", "give the archive or the layout directory that holds it"
    if head[0x1FE:0x200] == b"\x55\xaa":
        return "this is a disk image, not an image archive", "imgtar reads container image archives"
    if len(head) < 512:
        if all(byte in b"\t\r\n" or 0x20 <= byte < 0x7F for byte in head):
            return "this is a text, not an image archive", "the download saved an error message: look into the file"
        return "this is too short to be an image archive", "the copy was cut short: copy it again"
    if all(byte in b"\t\r\n" or byte >= 0x20 for byte in head):
        return (
            "this is a text, not an image archive",
            "look into the file: it may be an error message or a checksum list",
        )
    if head[257:262] == b"ustar":
        return "the first tar header is damaged", "copy the archive again and check the medium"
    return (
        "this is not an image archive of any known kind",
        "image archives come from docker save, skopeo copy, ctr images export …",
    )


_ROOTFS = frozenset("bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var".split())
_MARKERS = frozenset("manifest.json index.json oci-layout repositories blobs".split())


def looks_like_other(names: Collection[str]) -> tuple[str, str] | None:
    """Recognise the tars that people mistake for image archives (the most repeated user mistake)."""
    tops = {name.partition("/")[0] for name in names}
    if tops & _MARKERS:
        return None
    if ".dockerenv" in tops or len(tops & _ROOTFS) >= 5:
        return (
            "this is a root file system export, not an image archive",
            "docker export makes such tars; make an image archive with docker save, or import this one with docker import",
        )
    if "Dockerfile" in tops or "Containerfile" in tops:
        return (
            "this is a build context with a Dockerfile, not an image archive",
            "build it first (docker build), then docker save the image",
        )
    if tops & _ROOTFS or any(name.rpartition("/")[2].startswith(".wh.") for name in names):
        return (
            "this is a single layer, or part of a root file system, not an image archive",
            "save the whole image: docker save -o FILE NAME",
        )
    return None


def describe_content(files: Collection[str], links: Mapping[str, str]) -> tuple[str, str]:
    """Return what a tar without any known marker looks like, and a hint."""
    if not files and not links:
        return "the tar is empty, not an image archive", "make the archive again"
    other = looks_like_other([*files, *links])
    if other is not None:
        return other
    if any(name.startswith("blobs/") for name in files):
        return (
            "the archive ends before index.json and manifest.json: it was cut short when it was made",
            "the tool that wrote it stopped early, though it may have reported success: make it again",
        )
    below = sorted({name.rpartition("/")[0] for name in files if name.endswith(("/index.json", "/manifest.json"))})
    if below:
        return (
            f"there is no image at the top of this tar, but one in the folder {below[0]!r}",
            f"unpack it and give the folder, or pack it from inside: tar -C {below[0]} -cf FILE .",
        )
    return (
        "this tar is not an image archive: it has no manifest.json, index.json or repositories",
        "image archives come from docker save, podman save, skopeo copy, ctr images export …",
    )
