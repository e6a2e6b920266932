"""What imgtar says of an archive, what engines make of it, and whether that is one and the same."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.builders.images import CONTAINERD_NAME, REF_NAME
from tests.campaigns.engines import Engine, Shown, Skopeo, go
from tests.campaigns.independent import members, plain
from tests.conftest import Imgtar

__all__ = ["Verdict", "full", "judge"]

Images = dict[str, dict[str, tuple[str, ...]]]
"""Names in full, to image IDs, to diff IDs. Images without a name are below ``""``."""


def full(name: str) -> str:
    """A name with the domain, the path and the tag that Docker reads into it."""
    if not name:
        return ""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first.lower() != first):
        domain, path = first, rest
    else:
        domain, path = "docker.io", name
    domain = "docker.io" if domain == "index.docker.io" else domain
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if ":" not in path.rpartition("/")[2] and "@" not in path:
        path += ":latest"
    return f"{domain}/{path}"


@dataclass
class Verdict:
    """What was found out about one archive and what imgtar made of it."""

    accepted: bool = False
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    picks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Names, to image IDs, to who shows them."""
    told: set[str] = field(default_factory=set)
    """Names of which imgtar says that they stand for several platforms without an index."""
    named: set[tuple[str, str]] = field(default_factory=set)
    """Names and image IDs of which imgtar says that manifest.json names this one of several platforms."""

    def picked(self, who: str, name: str, image_id: str) -> None:
        who_shows = self.picks.setdefault(name, {}).setdefault(image_id, [])
        if who not in who_shows:
            who_shows.append(who)


def _inspected(document: Any) -> Images:
    """The images of ``imgtar inspect --json``."""
    found: Images = {}

    def walk(rows: Iterable[Any], names: list[str]) -> None:
        for one in rows:
            own = names or one["names"]
            if "manifests" in one:
                walk(one["manifests"], own)
            elif one.get("image_id"):
                for name in own or [""]:
                    ids = tuple(layer["diff_id"] for layer in one["layers"])
                    found.setdefault(full(name), {})[one["image_id"]] = ids

    walk(document["images"], [])
    return found


def ours(imgtar: Imgtar, archive: Path, verdict: Verdict) -> Images | None:
    """What imgtar says; ``None`` when it refuses. Its commands must say the same."""
    proof = imgtar("verify", archive, "--json")
    load = imgtar("load", "-i", archive)
    assert proof.code != 1, proof.errors
    assert load.code != 1, load.errors
    if proof.code or load.code:
        if load.code == 0:
            verdict.counts["loaded, but refused by verify"] += 1
        return None
    proved = {
        (full(name), one["image_id"])
        for part in proof.json()["archives"]
        for one in part["images"]
        for name in one["names"] or [""]
    }
    for one in proof.json()["findings"]:
        if one["code"] == "E_NAME" and "platforms without an index" in one["message"]:
            verdict.told.add(full(one["subject"]))
        elif one["code"] == "E_TYPE" and (names := re.match(r"manifest\.json shows (\S+) of it", one["message"])):
            verdict.named.add((full(one["subject"]), names[1]))
    shown = _inspected(imgtar("inspect", archive, "--json").ok().json())
    listed = {(full(one["name"] or ""), one["image_id"]) for one in imgtar.images()}
    seen = {(name, one) for name, images in shown.items() for one in images}
    # What inspect lists besides is absent.
    same = {one for _, one in proved} == {one for _, one in listed} <= {one for _, one in seen}
    if not same or {one for one in proved if one[0]} != {one for one in listed if one[0]}:
        verdict.faults.append(f"verify says {sorted(proved)}, images {sorted(listed)}, inspect {sorted(seen)}")
    for name, one in listed:
        layers = next((images[one] for images in shown.values() if one in images), ())
        shown.setdefault(name, {}).setdefault(one, layers)
    return shown


def _read(data: bytes) -> dict[str, str]:
    """The documents at the root of an archive, as text. Archives with tricks in the tar itself may seem to have none."""
    try:
        rows = members(plain(data))
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return {}
    return {
        name.removeprefix("./"): content.decode("utf-8", "replace")
        for name, _, _, content in rows
        if name.removeprefix("./") in ("manifest.json", "index.json")
    }


def _bare_tags(data: bytes) -> set[str]:
    """Everything that the archive has as a ref.name that is a tag alone."""
    return set(re.findall(r'ref\.name"\s*:\s*"([^"/:@]*)"', _read(data).get("index.json", "")))


def _entries(index: str) -> list[dict[str, str]]:
    """The annotations of the entries of an index.json."""
    try:
        return [dict(one.get("annotations") or {}) for one in go(index.encode())["manifests"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _names_for_skopeo(documents: dict[str, str]) -> dict[str, list[str]]:
    """How skopeo can be asked for what is in the archive: references for each transport."""
    asked: dict[str, list[str]] = {}
    if (text := documents.get("manifest.json")) is not None:
        tags = re.findall(r'"(?i:RepoTag[s\u017f])"\s*:\s*\[([^]]*)\]', text)
        asked["docker-archive"] = [tag for one in tags for tag in re.findall(r'"([^"]*)"', one)] or ["@0"]
    if (text := documents.get("index.json")) is not None:
        asked["oci-archive"] = re.findall(r'ref\.name"\s*:\s*"([^"]*)"', text) or [""]
    return {transport: list(dict.fromkeys(one))[:3] for transport, one in asked.items()}


_REFERENCE = re.compile(r"[A-Za-z0-9.:\[\]-]+(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""A name with a tag that a registry could have. ctr takes any text for a name, skopeo any for a reference; imgtar says that it is none."""


def _meant(name: str, images: Images, bare: set[str]) -> list[str]:
    """The names of imgtar that an engine's name can stand for."""
    # Without a name it may be one of those that imgtar has a name for. A digest in a name is told to be dropped.
    if not name or "@" in name:
        return ["*"]
    whole = full(name)
    if whole in images:
        meant = [whole]
    elif whole.startswith("localhost/"):
        # podman calls a short name localhost/...
        rest = whole.removeprefix("localhost/")
        meant = [one for one in (f"docker.io/library/{rest}", f"docker.io/{rest}") if one in images]
    else:
        meant = []
    if whole.startswith("localhost/"):
        other = full(whole.removeprefix("localhost/"))
        if other in images and other not in meant:
            meant.append(other)
    if meant:
        return meant
    # A bare tag is a name to some: ctr calls it import-DATE:TAG, docker and podman TAG:latest.
    tag = re.fullmatch(r"docker\.io/library/import-\d{4}-\d\d-\d\d:(.*)", whole) or re.fullmatch(
        r"(?:docker\.io/library|localhost)/(.*):latest", whole
    )
    path = whole.partition("/")[2].rpartition(":")[0]
    if (tag and tag[1] in bare) or not _REFERENCE.fullmatch(whole) or len(path) > 255:
        return ["*"]
    return []


def judge_shown(
    who: str, shown: Iterable[Shown], images: Images, bare: set[str], verdict: Verdict, *, given: bool
) -> None:
    """Compare what an engine shows with what imgtar lists."""
    for one in shown:
        meant = _meant(one.name, images, bare)
        if not meant:
            verdict.faults.append(f"{who} shows {one.image_id[:19]} as {one.name}, a name that imgtar does not list")
            continue
        allowed = {key: value for name in (images if "*" in meant else meant) for key, value in images[name].items()}
        if one.image_id not in allowed:
            verdict.faults.append(
                f"{who} shows {one.image_id[:19]} as {one.name!r}, imgtar {[i[:19] for i in allowed]}"
            )
            continue
        if one.diff_ids != allowed[one.image_id]:
            verdict.faults.append(
                f"{who} shows {one.image_id[:19]} with the layers {one.diff_ids}, imgtar {allowed[one.image_id]}"
            )
        if len(meant) == 1 and meant != ["*"] and not (given and _explained(who, meant[0], one.image_id, verdict)):
            verdict.picked(who, meant[0], one.image_id)


def _explained(who: str, name: str, image_id: str, verdict: Verdict) -> bool:
    """Whether imgtar said why an engine has another pick from the archive that was given.

    A name that stands for several platforms without an index is read in several ways. And who reads manifest.json has no choice: it names one
    platform, that of the machine it was made on. podman reads it when it finds nothing for itself in the index.
    """
    if who.startswith(("docker (given)", "skopeo docker-archive", "podman")) and (name, image_id) in verdict.named:
        return True
    return name in verdict.told


def ask(engine: Engine, archive: Path) -> tuple[bool, list[Shown]]:
    """Give an archive to an engine, see what it has then, and take it away again."""
    try:
        ok = engine.load(archive)
        # Of an archive that it refused it may have kept a part: what has a name must be right all the same.
        return ok, [one for one in engine.shown() if ok or one.name]
    finally:
        engine.wipe()


def ask_skopeo(
    skopeo: Skopeo, transport: str, references: list[str], archive: Path, entries: list[dict[str, str]], images: Images
) -> tuple[bool, list[Shown]]:
    """skopeo for every name that it can be asked for."""
    shown = []
    for reference in references:
        found = skopeo.image(transport, archive, reference)
        if found is None:
            continue
        name = "" if reference == "@0" else reference
        if transport == "oci-archive" and (full(name) not in images or not set(name) & set("/:@")):
            # It is not a name but what the layout calls it. The name is in the other annotation.
            meant = {one.get(CONTAINERD_NAME, "") for one in entries if one.get(REF_NAME, "") == reference}
            name = meant.pop() if len(meant) == 1 else ""
        shown.append(Shown(name, *found))
    return bool(shown), shown


FORMS = ("hybrid", "docker", "oci")


def judge(
    imgtar: Imgtar,
    engines: list[Engine],
    skopeo: Skopeo,
    folder: Path,
    data: bytes,
    pool: ThreadPoolExecutor,
    forms: Iterable[str] = FORMS,
) -> Verdict:
    """Everything about one archive."""
    verdict = Verdict()
    archive = folder / "given.tar"
    archive.write_bytes(data)
    images = ours(imgtar, archive, verdict)
    if images is None:
        return verdict
    verdict.accepted = True
    bare = _bare_tags(data)
    archives = [("given", archive)]
    rows = imgtar.images()
    wanted = list(dict.fromkeys(one["name"] or one["image_id"] for one in rows))
    for form in forms if wanted else ():
        path = folder / f"{form}.tar"
        path.unlink(missing_ok=True)
        done = imgtar("save", "--format", form, "-o", path, *wanted)
        assert done.code != 1, done.errors
        verdict.counts["written" if done.code == 0 else "not written"] += 1
        if done.code:
            continue
        archives.append((f"saved {form}", path))
        proof = imgtar("verify", path, "--json")
        if proof.code:
            verdict.faults.append(f"imgtar refuses what it saved as {form}: {proof.errors}")
    for what, path in archives:
        documents = _read(path.read_bytes())
        asked: dict[str, Future[tuple[bool, list[Shown]]]] = {
            engine.name: pool.submit(ask, engine, path) for engine in engines
        }
        for transport, references in _names_for_skopeo(documents).items():
            entries = _entries(documents.get("index.json", ""))
            asked[f"skopeo {transport}"] = pool.submit(ask_skopeo, skopeo, transport, references, path, entries, images)
        for who, future in asked.items():
            ok, shown = future.result()
            verdict.counts[f"{who} {'accepted' if ok and shown else 'refused'}"] += 1
            judge_shown(f"{who} ({what})", shown, images, bare, verdict, given=what == "given")
    for name, picks in verdict.picks.items():
        if len(picks) > 1:
            said = "; ".join(f"{one[:19]}: {', '.join(who)}" for one, who in picks.items())
            verdict.faults.append(f"{name} is not one image for all: {said}")
    return verdict
