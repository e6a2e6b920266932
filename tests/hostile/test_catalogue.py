"""Every row of the catalogue of hostile inputs has a test that names it, or a reason why it does not apply."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
SECURITY = TESTS.parent / "docs" / "security.md"
ROWS = {*range(1, 264), 273, 274}

_IN_A_NAME = re.compile(r"_h(\d+)(?:_to_h(\d+))?(?=_|$)")
_IN_THE_TABLE = re.compile(r"H(\d+)(?:-H(\d+))?")


def _span(match: re.Match[str]) -> set[int]:
    first = int(match[1])
    return set(range(first, int(match[2] or first) + 1))


def named_by(name: str) -> set[int]:
    """The rows in the name of a test: ``test_h77_h78_...``, ``test_h01_to_h11_...``."""
    return {row for match in _IN_A_NAME.finditer(name) for row in _span(match)}


def rows_of_tests() -> set[int]:
    """The rows that some test names."""
    return {
        row
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for row in named_by(node.name)
    }


def not_applicable() -> dict[int, str]:
    """The rows of the table in docs/security.md, each with its reason."""
    _, _, part = SECURITY.read_text().partition("## Rows that do not apply\n")
    lines = [line for line in part.partition("\n## ")[0].splitlines() if line.startswith("| H")]
    cells = [[cell.strip() for cell in line.strip("|").split("|", 1)] for line in lines]
    return {row: reason for ids, reason in cells for match in _IN_THE_TABLE.finditer(ids) for row in _span(match)}


def _shown(rows: set[int]) -> str:
    return ", ".join(f"H{row:02}" for row in sorted(rows))


def test_names_of_tests_are_read() -> None:
    assert named_by("test_h77_h78_a_marker") == {77, 78}
    assert named_by("test_h01_to_h04_a_name_of_h264x") == {1, 2, 3, 4}
    assert named_by("test_sha256_h9") == {9}


def test_every_row_has_a_test_or_a_reason() -> None:
    missing = ROWS - rows_of_tests() - set(not_applicable())
    assert not missing, f"no test names {_shown(missing)}, and docs/security.md gives no reason"


def test_no_row_has_both_and_no_row_is_invented() -> None:
    both = rows_of_tests() & set(not_applicable())
    assert not both, f"{_shown(both)}: docs/security.md says they do not apply, but there are tests"
    invented = (rows_of_tests() | set(not_applicable())) - ROWS
    assert not invented, f"there are no rows {_shown(invented)}"


def test_every_reason_is_one() -> None:
    assert all(len(reason) > 20 for reason in not_applicable().values())
