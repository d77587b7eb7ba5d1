"""Claims about schemas: a value is what its hint says, or an error names the file and the key."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest

from minilora.system.errors import UsageError
from minilora.system.schemas import NOT_EMPTY, POSITIVE, Range, checked


@dataclass(frozen=True)
class Choice:
    text: Annotated[str, NOT_EMPTY]
    right: bool = False


class Row(TypedDict, total=False):
    lr: Annotated[float, POSITIVE] | None
    r: Annotated[int, Range(1, 8)]


class Results(TypedDict):
    rows: list[Row]


@pytest.mark.parametrize(
    ("value", "hint", "made"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float | None, 0.5),
        (None, float | None, None),
        ("a", Literal["a", "b"], "a"),
        ([1, 2], list[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ({"a": 1}, dict[str, int], {"a": 1}),
        ({"text": "x"}, Choice, Choice("x")),
        ([{"text": "x", "right": True}], tuple[Choice, ...], (Choice("x", True),)),
        ({"rows": [{"lr": 1, "other": "kept"}]}, Results, {"rows": [{"lr": 1.0, "other": "kept"}]}),
        ({"x": [object]}, Any, {"x": [object]}),
    ],
)
def test_what_fits_is_made_of_the_hint(value, hint, made):
    found = checked(value, hint, "file")
    assert found == made and type(found) is type(made)


@pytest.mark.parametrize(
    ("value", "hint", "sentence"),
    [
        (True, int, "f.json must be a whole number, got true"),
        (True, float, "f.json must be a number, got true"),
        (1, bool, "f.json must be true or false, got 1"),
        (2.0, int, "f.json must be a whole number, got 2.0"),
        ("2", int | None, "f.json must be a whole number or null, got '2'"),
        (None, str, "f.json must be a text, got null"),
        (1, Literal[True], "f.json must be True, got 1"),
        ("c", Literal["a", "b"], "f.json must be one of 'a', 'b', got 'c'"),
        ([], dict[str, Any], "f.json must be an object, got a list of 0"),
        ({}, list[int], "f.json must be a list, got an empty object"),
        ([0, "x"], list[int], r"f.json: \[1\] must be a whole number, got 'x'"),
        (dict(rows=[{}, {"lr": "x"}]), Results, r"f.json: rows\[1\].lr must be a number above 0"),
        (
            dict(rows=[{"r": "x"}]),
            Results,
            r"r must be a whole number from 1 to 8, got 'x'",
        ),
        (dict(rows=[{"lr": 0}]), Results, r"rows\[0\].lr must be a number above 0 or null, got 0"),
        (dict(rows=[{"r": 9}]), Results, r"rows\[0\].r must be a whole number from 1 to 8, got 9"),
        ({}, Results, "f.json: lacks rows"),
        ([{"right": True}], list[Choice], r"f.json: \[0\] lacks text"),
        ({"text": ""}, Choice, "f.json: text must be a text that is not empty, got ''"),
        ({"text": "a", "wrong": 1}, Choice, "wrong is not known; known are text, right"),
        ({"a b": 1}, dict[str, str], "f.json: 'a b' must be a text, got 1"),
        ({"x": {"a-b": 1}}, dict[str, dict[str, str]], r"f.json: x\['a-b'\] must be a text"),
        ("y" * 1000, int, r"must be a whole number, got 'y+\.\.\.y+'$"),
        ({"k" * 999: 1}, dict[str, str], r"f.json: 'k+\.\.\.k+' must be a text, got 1"),
        (10**300, str, r"f.json must be a text, got 10+\.\.\.0+$"),
        ({"a": 1}, dict[str, str] | None, "f.json: a must be a text, got 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_key(value, hint, sentence):
    with pytest.raises(UsageError, match=sentence):
        checked(value, hint, "f.json")
