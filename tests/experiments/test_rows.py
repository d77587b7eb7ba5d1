"""Claims about rows: how they are picked, what a spread is, and how they look in a file."""

import json
from typing import get_args, get_type_hints

import pytest

from minilora.experiments.comparison import Entry
from minilora.experiments.rows import Columns, distinct, in_six_digits, save_json, select, spread
from minilora.system.errors import UsageError
from minilora.training.quality import METRICS

ROWS = [
    {"method": "full", "r": None, "test": 1.0},
    {"method": "lora", "r": 4, "test": 3.0},
    {"method": "lora", "r": 4, "test": 2.0},
    {"method": "lora", "r": 1, "test": 5.0},
]


def test_rows_are_selected_by_all_values_that_are_given():
    assert select(ROWS, method="lora", r=4) == ROWS[1:3]
    assert select(ROWS) == ROWS and select(ROWS, r=2) == []
    assert select(ROWS, r=None) == ROWS[:1]
    with pytest.raises(KeyError, match="rank"):
        select(ROWS, rank=4)


def test_distinct_values_ascend_without_none():
    assert distinct(ROWS, "r") == [1, 4]


def test_a_spread_is_mean_lowest_and_highest_at_each_x():
    assert spread(ROWS[1:], "r", "test") == ([1, 4], [5.0, 2.5], [5.0, 2.0], [5.0, 3.0])


def test_a_file_has_a_line_for_each_row_and_is_read_as_it_was(tmp_path):
    nested = {
        "command": "minilora compare",
        "machine": {"cores": 2},
        "tasks": [{"task": "code", "about": "English → Python", "runs": ROWS, "samples": {}}],
    }
    for value in (ROWS, {"seeds": 3, "rows": ROWS}, nested, [], {}, [1, 2], None):
        file = tmp_path / "value.json"
        save_json(value, str(file))
        assert json.loads(file.read_text("utf-8")) == value
        lines = [line.strip(" ,") for line in file.read_text("utf-8").splitlines()]
        assert value in ([], {}, [1, 2], None) or all(json.dumps(row) in lines for row in ROWS)


def test_six_digits_of_a_float_are_kept_and_all_of_a_whole_number():
    row = {"val": 1.77445915, "small": 1.23456789e-9, "trainable": 134_515_008, "diverged": False}
    curve = [[10, 2.00000049], [20, None]]
    short = {"val": 1.77446, "small": 1.23457e-9, "trainable": 134_515_008, "diverged": False}
    found = in_six_digits([row | {"curve": curve, "method": "lora"}])
    assert found == [short | {"curve": [[10, 2.0], [20, None]], "method": "lora"}]
    assert found[0]["diverged"] is False


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused_and_the_old_file_stays(number, tmp_path):
    file = tmp_path / "rows.json"
    save_json(ROWS, file)
    with pytest.raises(UsageError, match="rows.json would hold NaN or infinity"):
        save_json([{"loss": number}], file)
    assert json.loads(file.read_text("utf-8")) == ROWS
    assert list(tmp_path.iterdir()) == [file]


def test_the_schema_knows_the_metrics():
    hints = (get_type_hints(schema)["metric"] for schema in (Columns, Entry))
    assert all(get_args(hint) == tuple(METRICS) for hint in hints)


@pytest.mark.parametrize(
    ("name", "read"), [(b"\xc3\xa9.txt", "é.txt"), (b"\xe9.txt", "\ufffd.txt")]
)
def test_a_file_name_of_another_locale_can_be_saved(name, read, tmp_path):
    """As Python hands it on where the locale is C, or where the name is not UTF-8."""
    save_json({"text": name.decode("ascii", "surrogateescape")}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"text": read}
