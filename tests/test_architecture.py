"""Who may import whom, and what only one room may touch. The picture is in docs/design.md; this keeps it true."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import imgtar

PACKAGE = Path(imgtar.__file__).parent

# Each room, and the rooms it may look into besides its own. ``proof`` is where a promise of the graph meets a
# measurement of blob: it stands beside ``ports``. ``root`` is imgtar/__init__.py with the version.
EVERYONE = {"errors", "events", "frozen", "text", "root"}
MAY_IMPORT: dict[str, set[str]] = {
    "root": set(),
    "errors": set(),
    "events": set(),
    "frozen": set(),
    "text": set(),
    "model": set(),
    "blob": {"model"},
    "graph": {"model"},
    "ports": {"blob", "graph", "model"},
    "proof": {"blob", "graph", "model"},
    "store": {"ports", "proof", "blob", "graph", "model"},
    "transport": {"ports", "proof", "blob", "graph", "model"},
    "ops": {"store", "transport", "ports", "proof", "blob", "graph", "model"},
    "cli": {"ops", "store", "transport", "ports", "proof", "blob", "graph", "model"},
    "__main__": {"cli"},
}
RULE = (
    "cli -> ops -> {store, transport} -> ports -> {blob, graph} -> model; errors, events, frozen and text by anyone; "
    "blob and graph do not know each other, nor do store and transport (docs/design.md)"
)


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands, what it names (``typing.Any`` as well as ``typing``)."""

    file: str
    line: int
    module: str
    names: tuple[str, ...]
    only_for_types: bool
    at_start: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def room_of(module: str) -> str:
    """The room of a dotted module below ``imgtar``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "root"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, tree: ast.Module) -> list[Import]:
    """Every import of a module, relative ones resolved, wherever in the file it stands."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    file = str(path.relative_to(PACKAGE.parent))
    at_start = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        when = (id(node) in for_types, id(node) in at_start)
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, each.name, (), *when) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = tuple(each.name for each in node.names)
            found.append(Import(file, node.lineno, base, names, *when))
    return found


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules().items()}
IMPORTS = {name: imports_of(name, path, TREES[name]) for name, path in modules().items()}


def targets(one: Import) -> list[str]:
    """The modules that an import statement reaches: ``from imgtar.cli import options`` reaches ``imgtar.cli.options``."""
    if not one.names:
        return [one.module]
    return [f"{one.module}.{name}" if f"{one.module}.{name}" in TREES else one.module for name in one.names]


def test_the_walk_sees_the_whole_package() -> None:
    assert len(TREES) > 50
    assert {"imgtar.cli.commands.load", "imgtar.ports", "imgtar.blob.workers"} <= set(TREES)
    assert sum(len(found) for found in IMPORTS.values()) > 300


def test_every_room_is_on_the_plan() -> None:
    unknown = {room_of(module) for module in TREES} - set(MAY_IMPORT)
    assert not unknown, f"new rooms {unknown}: say here and in docs/design.md whom they may import"


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | EVERYONE | {room}
    wrong = [
        f"{one} imports {target}"
        for module, found in IMPORTS.items()
        if room_of(module) == room
        for one in found
        for target in targets(one)
        if target.split(".")[0] == "imgtar" and room_of(target) not in allowed
    ]
    assert not wrong, f"{room} may import only {sorted(allowed)}. The rule: {RULE}\n" + "\n".join(wrong)


def test_the_inner_rooms_do_not_go_round_in_circles() -> None:
    """A cycle between modules makes it impossible to import one without the other."""
    graph = {
        module: {
            target for one in found if one.at_start for target in targets(one) if target in TREES and target != module
        }
        for module, found in IMPORTS.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "modules import each other: " + " -> ".join((*path, module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


CHECKSUMS = {"adler32", "crc32"}
"""Functions of zlib that decompress nothing."""

COMPRESSORS = {"zlib", "gzip", "bz2", "lzma", "zstandard", "zlib_ng"}


def decompresses_nothing(one: Import) -> bool:
    """Whether an import takes only checksums from its library."""
    return bool(one.names) and set(one.names) <= CHECKSUMS


def only_in(libraries: set[str], places: tuple[str, ...], why: str) -> None:
    """Fail when one of ``libraries`` is imported outside ``places`` (modules, with what is below them)."""
    wrong = [
        f"{one} imports {one.module}"
        for module, found in IMPORTS.items()
        if not f"{module}.".startswith(tuple(f"{place}." for place in places))
        for one in found
        if one.module.split(".")[0] in libraries and not decompresses_nothing(one)
    ]
    assert not wrong, f"{sorted(libraries)} only in {', '.join(places)}: {why}\n" + "\n".join(wrong)


def test_the_terminal_libraries_stay_in_cli() -> None:
    why = "the work must be usable without a terminal, and a plain command line be answered without typer"
    only_in({"typer", "rich", "click"}, ("imgtar.cli.app", "imgtar.cli.main"), why)


def test_pydantic_stays_where_strangers_documents_enter() -> None:
    why = "the shape is checked once, at the rim; inside are plain values"
    only_in({"pydantic_core"}, ("imgtar.model.shapes",), why)
    only_in({"pydantic"}, ("imgtar.nowhere",), "its engine does the checks; building models of classes costs 100 ms")


def test_compression_libraries_stay_where_streams_are_undone_or_made() -> None:
    only_in(
        {"bz2", "lzma", "zlib_ng"},
        ("imgtar.blob.decompress",),
        "a stranger's stream is undone only where every limit and every end is checked",
    )
    only_in({"zlib", "gzip"}, ("imgtar.blob.compress",), "only zlib's own deflate writes gzip that repeats")
    only_in({"zstandard"}, ("imgtar.blob.decompress", "imgtar.blob.compress"), "the one reads it, the other writes it")


def test_compression_libraries_are_imported_only_when_a_stream_needs_them() -> None:
    """Start-up time is felt at every call, and most calls meet one compression or none."""
    late = {
        (module, node.lineno)
        for module, tree in TREES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    wrong = [
        f"{one} imports {one.module}"
        for module, found in IMPORTS.items()
        for one in found
        if one.module.split(".")[0] in COMPRESSORS and not decompresses_nothing(one)
        if (module, one.line) not in late
    ]
    assert not wrong, "import it inside the stream that needs it:\n" + "\n".join(wrong)


def test_values_are_made_without_dataclasses() -> None:
    only_in({"dataclasses"}, ("imgtar.nowhere",), "each class costs 0.7 ms at every start; see imgtar/frozen.py")


def test_nobody_uses_the_lenient_tar_reader() -> None:
    only_in({"tarfile"}, ("imgtar.nowhere",), "tarfile hides corruption; blob/tar_reader.py is strict")


def test_nobody_starts_programs_or_opens_connections() -> None:
    only_in(
        {"subprocess", "socket", "ssl", "http", "urllib", "ftplib", "asyncio", "multiprocessing", "ctypes", "pickle"},
        ("imgtar.transport.registry", "imgtar.transport.engines"),
        "no archive may make imgtar run something; the network belongs to registry and engines alone",
    )


def test_nothing_but_declared_dependencies_is_imported() -> None:
    declared = {"typer", "pydantic_core", "zstandard", "zlib_ng", "imgtar"}
    wrong = [
        f"{one} imports {one.module}"
        for found in IMPORTS.values()
        for one in found
        if (top := one.module.split(".")[0]) not in declared and top not in sys.stdlib_module_names
    ]
    assert not wrong, "pyproject.toml does not name these:\n" + "\n".join(wrong)


def _uses(tree: ast.Module) -> list[tuple[int, str]]:
    """Every dotted name and every call of a plain name: ``os.environ``, ``print()``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.append((node.lineno, f"{node.func.id}()"))
    return found


def _users(wanted: tuple[str, ...], outside: tuple[str, ...]) -> list[str]:
    wrong = []
    for module, tree in TREES.items():
        if module.startswith(outside):
            continue
        path = modules()[module].relative_to(PACKAGE.parent)
        wrong += [f"{path}:{line} uses {name}" for line, name in _uses(tree) if name in wanted]
    return wrong


def test_threads_are_started_only_in_workers() -> None:
    """A lock, or a buffer for each thread, is no thread: those may be anywhere."""
    harmless = {"threading.Lock", "threading.RLock", "threading.local"}
    wrong = []
    for module, tree in TREES.items():
        if module in ("imgtar.blob.workers", "imgtar.blob.lanes"):
            continue
        path = modules()[module].relative_to(PACKAGE.parent)
        wrong += [
            f"{path}:{line} uses {name}"
            for line, name in _uses(tree)
            if name.startswith("threading.") and ".".join(name.split(".")[:2]) not in harmless
        ]
        wrong += [
            f"{one} imports {one.module}"
            for one in IMPORTS[module]
            if one.module.split(".")[0] in ("queue", "concurrent", "_thread")
            or (one.module == "threading" and set(one.names) - {"Lock", "RLock", "local"})
        ]
    assert not wrong, (
        "threads only in blob/workers.py and blob/lanes.py, where their failures are handed on:\n" + "\n".join(wrong)
    )


def test_environment_terminal_and_exit_belong_to_cli() -> None:
    wanted = (
        "print()",
        "input()",
        "exit()",
        "quit()",
        "sys.exit",
        "os._exit",
        "sys.stdout",
        "sys.stderr",
        "sys.stdin",
        "sys.argv",
        "os.environ",
        "os.environb",
        "os.getenv",
        "os.getcwd",
        "os.chdir",
        "os.umask",
        "os.isatty",
        "os.path.expanduser",
        "signal.signal",
    )
    wrong = _users(wanted, ("imgtar.cli", "imgtar.__main__"))
    assert not wrong, "options in, a value out: only cli meets environment, terminal and exit:\n" + "\n".join(wrong)


def test_nobody_prints_past_the_console() -> None:
    wrong = _users(("print()", "input()"), ("imgtar.nowhere",))
    assert not wrong, "what is shown goes through cli/console.py, which makes it safe to look at:\n" + "\n".join(wrong)


def test_the_graph_and_the_model_touch_no_file() -> None:
    wrong = [
        f"{one} imports {one.module}"
        for module, found in IMPORTS.items()
        if room_of(module) in ("graph", "model")
        for one in found
        if one.module.split(".")[0] in ("os", "io", "pathlib", "shutil", "tempfile", "fcntl", "time", "random")
    ]
    wrong += [line for line in _users(("open()",), ()) if "/graph/" in line or "/model/" in line]
    assert not wrong, "graph and model are pure, so that a dry run cannot differ from the load:\n" + "\n".join(wrong)


def test_commands_import_their_work_only_when_they_run() -> None:
    """Start-up time is felt at every call: naming the commands must not import what one of them needs."""
    heavy = ("imgtar.ops", "imgtar.store", "imgtar.transport", "imgtar.graph", "pydantic_core", "zstandard", "zlib_ng")
    wrong = []
    for module, tree in TREES.items():
        if room_of(module) != "cli":
            continue
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        for one in imports_of(module, modules()[module], top):
            wrong += [f"{one} imports {target}" for target in targets(one) if target.startswith(heavy)]
    assert not wrong, "import it inside the function that needs it:\n" + "\n".join(wrong)
