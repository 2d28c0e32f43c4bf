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


def _is_unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
