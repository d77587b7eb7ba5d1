"""Claims about the glossary: it is sorted, and each word names the lesson that explains it."""

import re

from test_lessons import LESSONS, NAMES, committed

from minilora.learn.exam.cards import LESSONS as TITLES

TEXT = (LESSONS / "GLOSSARY.md").read_text(encoding="utf-8")
ENTRIES = TEXT.split("\n\n")[2:]  # after the title and the first paragraph


def terms() -> list[str]:
    return [entry.partition("**: ")[0].removeprefix("**") for entry in ENTRIES]


def test_every_entry_is_a_term_and_a_line_that_ends_with_its_lesson():
    for entry in ENTRIES:
        found = re.fullmatch(r"\*\*[^*]+\*\*: .+ \(lesson (\d\d)\)\.\n?", entry)
        assert found and found[1] in TITLES, entry


def test_terms_are_sorted_and_there_is_one_entry_for_each():
    keys = [term.casefold() for term in terms()]
    assert keys == sorted(set(keys))


def words_of(name: str) -> str:
    """A lesson's cells, in small letters and without line breaks."""
    return " ".join(" ".join(cell.source for cell in committed(name).cells).casefold().split())


def test_a_word_stands_in_the_lesson_that_is_to_explain_it():
    texts = {name[:2]: words_of(name) for name in NAMES}
    missing = []
    for term, entry in zip(terms(), ENTRIES, strict=True):
        lesson = entry.rstrip(").\n")[-2:]
        forms = re.split(r"[(),]+", term.casefold())
        if lesson in texts and not any(form.strip() in texts[lesson] for form in forms if form):
            missing.append(f"{term} ({lesson})")
    assert not missing
