"""Rules of the house that no other tool checks."""

import ast
import inspect
import re
from collections.abc import Iterator
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


DOCS = [*sorted(PACKAGE.parent.glob("docs/*.md")), PACKAGE.parent / "CONTRIBUTING.md"]
COLUMNS = 120
ARCHAIC = re.compile(r"\b(mend(s|ed|ing)?|anew|whence|wherein|thereof|hitherto|naught|lest)\b", re.IGNORECASE)


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page, without code and tables."""
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code and not line.startswith("|"):
            yield number, line


@pytest.mark.parametrize("page", [page for page in DOCS if page.name != "findings.md"], ids=lambda page: page.name)
def test_docs_are_wrapped(page: Path) -> None:
    """A line that is one link may be longer."""
    long = [number for number, line in prose(page) if len(line) > COLUMNS and len(line.split()) > 1]
    assert not long, f"{page.name}: lines {long} have more than {COLUMNS} columns"


WRITTEN = [*DOCS, *(PACKAGE.parent / name for name in ("README.md", "CHANGELOG.md"))]
MOST_WORDS = 25


def sentences(text: str) -> Iterator[str]:
    """Those of a text, without formulas and the addresses of links; an item of a list or of arguments begins one."""
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\s*\w+: )", text):
        if not block.lstrip().startswith("<"):  # pictures
            plain = re.sub(r"\]\([^)]*\)", "]", " ".join(block.split()))
            yield from re.split(r"(?<=[.?!])[)\"*\u201d]*\s+(?=[^a-z])", plain)


def too_long(text: str) -> list[str]:
    return [said for said in sentences(text) if len(re.findall(r"\S*\w\S*", said)) > MOST_WORDS]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    assert not too_long("\n".join(line for _, line in prose(page)))


def test_sentences_of_public_names_are_short() -> None:
    for name in icl_circuits.__all__:
        of = getattr(icl_circuits, name)
        members = [of, *(vars(of).values() if inspect.isclass(of) else ())]
        for member in members:
            if isinstance(member, type | property) or inspect.isroutine(member):
                assert not too_long(inspect.getdoc(member) or ""), name


def test_words_are_plain() -> None:
    """In docs, messages and help texts."""
    said = [(page.name, line) for page in DOCS if page.name != "findings.md" for _, line in prose(page)]
    said += [(module.name, text) for module in MODULES for text in texts(module)]
    found = [(name, ARCHAIC.search(text)[0]) for name, text in said if ARCHAIC.search(text)]  # type: ignore[index]
    assert not found
