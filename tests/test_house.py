"""Rules of the house that no other tool checks."""

import ast
from pathlib import Path

import pytest

import icl_circuits

PACKAGE = Path(icl_circuits.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def texts(module: Path) -> list[str]:
    """Every string of a module that is not documentation."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
    ]


def test_one_module_writes_hook_names() -> None:
    for module in MODULES:
        if module != PACKAGE / "models" / "sites.py":
            found = [text for text in texts(module) if text.startswith(("blocks.", "hook_")) or ".hook_" in text]
            assert not found, f"{module.relative_to(PACKAGE)} writes {found}"


def test_modules_are_small() -> None:
    for module in MODULES:
        assert len(module.read_text(encoding="utf-8").splitlines()) <= 300, module.relative_to(PACKAGE)


def test_no_function_is_named_like_its_module() -> None:
    """`from package import name` would give one or the other, by the order of imports."""
    for module in MODULES:
        names = {
            node.name
            for node in ast.parse(module.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert module.stem not in names, module.relative_to(PACKAGE)


@pytest.mark.parametrize("kind", [ast.ClassDef, ast.FunctionDef])
def test_public_names_are_of_one_thing(kind: type) -> None:
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                homes.setdefault(node.name, []).append(str(module.relative_to(PACKAGE)))  # type: ignore[attr-defined]
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert not twice


def test_every_public_name_is_there() -> None:
    assert len(icl_circuits.__all__) > 50
    for name in icl_circuits.__all__:
        assert getattr(icl_circuits, name).__doc__, f"{name} has no documentation"
