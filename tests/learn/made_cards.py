"""Small cards for tests of the quiz, of each kind, whose texts say what they are; and progress."""

from minilora.learn.exam.cards import Card, Choice

ENTRY = {
    "state": 2,
    "step": None,
    "stability": 2.3,
    "difficulty": 2.1,
    "due": "2026-11-28T09:00:00+00:00",
    "last_review": "2026-11-26T09:00:00+00:00",
    "answered": 3,
    "right": 2,
}
NEVER_ASKED = ENTRY | {"state": 1, "step": 0, "answered": 0, "right": 0} | dict.fromkeys(
    ("stability", "difficulty", "last_review")
)  # fmt: skip
_FORMS = {
    "choice": ("Which is right?", ("right", "wrong", "worse", "worst"), {}),
    "error": ("“LoRA is wrong.” What is?", ("right", "wrong", "worse", "worst"), {}),
    "cloze": ("It is ____.", ("$r (d_in + d_out)$", "$r d_in d_out$", "$d_in d_out$"), {}),
    "order": (
        "In which order?",
        ("2 4 1 3", "1 2 3 4", "4 3 2 1"),
        {"items": ("third", "first", "fourth", "second")},
    ),
    "match": (
        "What belongs together?",
        ("1B 2A 3C", "1A 2B 3C", "1C 2B 3A"),
        {"items": ("one", "two", "three"), "options": ("of two", "of one", "of three")},
    ),
}


def made(kind="choice", name="made", topic="definition", lesson="00", texts=None, **fields):
    """A card whose first choice is right; texts: of its choices."""
    question, default_texts, more = _FORMS[kind]
    texts = texts or default_texts
    choices = tuple(Choice(f"key{i}", text, f"why {text}") for i, text in enumerate(texts))
    values = {
        "id": name,
        "kind": kind,
        "tags": (topic,),
        "lesson": lesson,
        "difficulty": 1,
        "question": question,
        "choices": choices,
        "answer": "key0",
        "explanation": "It is so.",
        "source": "A book",
        "demo": "definition.what_is_lora",
    }
    return Card(**(values | more | fields))
