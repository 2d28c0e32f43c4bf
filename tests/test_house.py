"""Rules of the house that no other tool checks."""

import ast
from pathlib import Path

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


def test_a_public_name_is_of_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module in PACKAGE.glob("*/__init__.py"):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            for alias in node.names if isinstance(node, ast.ImportFrom) else []:
                homes.setdefault(alias.asname or alias.name, []).append(module.parent.name)
    assert len(homes) > 150
    assert not {name: rooms for name, rooms in homes.items() if len(rooms) > 1}


def test_every_public_name_is_there() -> None:
    assert len(icl_circuits.__all__) > 50
    for name in icl_circuits.__all__:
        assert getattr(icl_circuits, name).__doc__, f"{name} has no documentation"
