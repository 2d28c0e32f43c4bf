"""Text from names, paths and data, made safe for where it is shown."""

import unicodedata


def visible(text: str) -> str:
    r"""`text` for a terminal or a printed table: characters that are not seen as `\n`, `\x1b`, `\u202e`.

    Those are control, format (bidi) and private characters, line separators, and what is no character.
    """
    return "".join(c.encode("unicode_escape").decode("ascii") if _is_unseen(c) else c for c in text)


def spreadsheet_cell(text: str) -> str:
    """`text` for a CSV file: behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) or text.startswith(("\t", "\r")) else text


def latex_text(text: str) -> str:
    """`text` in characters that pdflatex sets: others stand as their code points, `U+4E2D`.

    What LaTeX takes for commands is left as it is.
    """
    return "".join(c if c.isascii() or c in SET_BY_LATEX else f"U+{ord(c):04X}" for c in visible(text))


SET_BY_LATEX = frozenset(chr(point) for point in (*range(0xA1, 0x180),)) - frozenset("\u00ad\u0149\u017f\u0138")
"""Characters beyond ASCII that pdflatex has by itself in T1: letters of European languages."""


def _is_unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
