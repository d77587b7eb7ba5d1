"""Claims about the exam's results that come with the package, and what is said of them."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from small_exam import ITEMS
from tokens import smollm2

from minilora.experiments.exam import (
    CHANCE,
    COURSES,
    MARKED,
    at_recipe_rate,
    mcnemar,
    shipped_exam,
    sit,
)
from minilora.experiments.exam_items import PARTS
from minilora.experiments.rows import select
from minilora.hub import load_model
from minilora.hub.places import ASSETS
from minilora.hub.tokenizers import load_tokenizer

ROWS = at_recipe_rate(shipped_exam())
GALLERY = (Path(__file__).parents[2] / "figures" / "README.md").read_text("utf-8")
(BASE,) = select(ROWS, course="base")
LORA = [row for row in shipped_exam() if row["method"] == "lora"]


def of(course):
    return select(ROWS, course=course)


def changes(course, part):
    """p of every seed."""
    return [mcnemar(BASE["marks"][part], row["marks"][part]) for row in of(course)]


def test_it_is_said_how_they_were_made():
    result = json.loads((ASSETS / "results" / "exam.json").read_text("utf-8"))
    assert result["command"].startswith("minilora sit-exam --courses all")
    assert result["version"] and result["machine"]["numpy"]


def test_every_course_sat_the_exam_that_is_shipped():
    assert {"base", "lora", "placebo", "full"} <= {row["course"] for row in ROWS} <= set(COURSES)
    asked = {part: len(ITEMS.part(part)) for part in ("reworded", "test")}
    asked |= {"statements": len(ITEMS.statements), "controls": len(ITEMS.controls)}
    for row in shipped_exam():
        assert {part: len(row["marks"][part]) for part in MARKED} == asked
        for part in MARKED:
            assert row[part] == pytest.approx(row["marks"][part].count("1") / asked[part], abs=1e-5)


def test_switched_off_every_adapter_leaves_exactly_the_base():
    assert LORA
    assert all(row["perplexity_detached"] == row["perplexity_base"] for row in LORA)


def test_the_gallery_says_what_the_numbers_are():
    right = [row["marks"]["reworded"].count("1") for row in of("lora") + of("full")]
    assert f"from 6 of 45 to {min(right)} to {max(right)} right" in GALLERY
    assert BASE["marks"]["reworded"].count("1") == 6 and len(BASE["marks"]["reworded"]) == 45
    assert "p at most 0.03 for every run" in GALLERY
    assert all(p < 0.03 for course in ("lora", "full") for p in changes(course, "reworded"))
    assert "the placebo, does not: 7 to 9 of 45" in GALLERY
    assert {row["marks"]["reworded"].count("1") for row in of("placebo")} == {7, 9}
    assert "perplexity 42.0201" in GALLERY and round(BASE["perplexity"], 4) == 42.0201


def test_on_what_was_not_taught_no_course_is_above_chance():
    assert "on cards that were not taught no course is above chance, 18 of 72, in the" in GALLERY
    assert "the highest of all runs has 19" in GALLERY
    right = {name: [row["marks"]["test"].count("1") for row in of(name)] for name in COURSES}
    assert all(mean(some) <= 72 * CHANCE["test"] for some in right.values())
    assert max(max(some) for some in right.values()) == 19
    assert all(len(row["marks"]["test"]) == 72 for row in ROWS)


def test_of_the_other_rates_the_gallery_says_what_was_measured():
    def at(course, key):
        rows = [row for row in shipped_exam() if row["course"] == course and row["seed"] == 0]
        return [row[key] for row in sorted(rows, key=lambda row: row["lr"])]

    right = {
        c: [marks["reworded"].count("1") for marks in at(c, "marks")] for c in ("lora", "full")
    }
    assert right == {"lora": [14, 22, 22], "full": [15, 18, 22]}
    assert (
        "LoRA 14 of 45 where the recipe's rate has 22, full fine-tuning 15 where it has" in GALLERY
    )
    lowest = [min(at(course, "nats_validation")) for course in ("lora", "full")]
    assert lowest == [at(course, "nats_validation")[0] for course in ("lora", "full")]
    said = f"({lowest[0]:.2f} and {lowest[1]:.2f} nats; the base has {BASE['nats_validation']:.2f})"
    assert said in GALLERY


def test_every_course_has_three_seeds_and_the_smaller_ones_gain_less():
    assert all(len(of(name)) == 3 for name in COURSES if name != "base")
    right = {name: [row["marks"]["reworded"].count("1") for row in of(name)] for name in COURSES}
    assert "with r = 1 it is 13 to 15, p from 0.01 to 0.07; on q and v alone 11 to 12" in GALLERY
    assert (min(right["lora-r1"]), max(right["lora-r1"])) == (13, 15)
    assert (min(right["lora-qv"]), max(right["lora-qv"])) == (11, 12)
    p = changes("lora-r1", "reworded")
    assert (round(min(p), 2), round(max(p), 2)) == (0.01, 0.07)
    assert min(changes("lora-qv", "reworded")) > 0.05
    for row in ROWS[1:]:
        assert row["course"] == "placebo" or 3.8 < row["nats_right"] < 4.35


@pytest.mark.system
def test_the_real_model_answers_as_is_shipped():
    few = replace(
        ITEMS,
        questions=tuple(q for part in PARTS for q in ITEMS.part(part)[:2]),
        statements=ITEMS.statements[:4],
        controls=ITEMS.controls[:2],
    )
    model = smollm2()
    row = sit(load_model(model), load_tokenizer(model), few)
    assert row["perplexity"] == pytest.approx(BASE["perplexity"], rel=1e-3)
    for part, marks in row["marks"].items():
        assert BASE["marks"][part].startswith(marks)
