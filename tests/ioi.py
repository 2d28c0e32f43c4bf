"""Indirect-object prompts (Wang et al. 2022) and greater-than prompts (Hanna et al. 2023), written out here."""

from typing import Any

NAMES = ("Mary", "John", "Alex", "Anna", "Mark", "Paul", "Jane", "Luke", "Nick", "Adam", "Lisa", "Kate")
"""Equally long, so that partners are too."""
PLACES = (("store", "drink"), ("school", "book"), ("office", "phone"), ("garden", "ring"))


def ioi(n: int) -> dict[str, Any]:
    """`n` clean prompts, partners whose repeated name is a third one, answers and foils: what `pairs` takes."""
    found: dict[str, Any] = {"clean": [], "corrupted": [], "answers": [], "foils": []}
    for i in range(n):
        io, subject, third = (NAMES[(i + step) % len(NAMES)] for step in (0, 1 + i % 3, 5))
        place, thing = PLACES[i % len(PLACES)]
        start = f"When {io} and {subject} went to the {place},"
        found["clean"].append(f"{start} {subject} gave a {thing} to")
        found["corrupted"].append(f"{start} {third} gave a {thing} to")
        found["answers"].append(f" {io}")
        found["foils"].append(f" {subject}")
    return found


def greater_than(n: int) -> dict[str, Any]:
    """`n` prompts whose year must go on above the first one's last digits, and partners that allow any."""
    nouns = ("war", "plan", "voyage", "strike")
    years = [17 * i % 70 + 15 for i in range(n)]
    sentence = "The {} lasted from the year 16{:02d} to the year 16"
    return {
        "clean": [sentence.format(nouns[i % 4], year) for i, year in enumerate(years)],
        "corrupted": [sentence.format(nouns[i % 4], 1) for i in range(n)],
        "answers": [f"{year:02d}" for year in years],
    }
