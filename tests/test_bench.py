"""Claims about the benchmark: its table and figure are of its numbers, and its engines agree."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # those of PyTorch, where it is installed

ROOT = Path(__file__).parents[1]
SHIPPED = json.loads((ROOT / "figures" / "speed.json").read_text("utf-8"))
REAL = json.loads((ROOT / "figures" / "real_speed.json").read_text("utf-8"))
TINY = "S,C=8,layers=1,T=8,B=2,V=16"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    try:
        import bench

        yield bench
    finally:
        sys.path.pop(0)


def test_shipped_table_is_that_of_the_shipped_numbers(bench):
    assert (ROOT / "figures" / "speed.md").read_text("utf-8") == bench.table(SHIPPED)


def test_a_goal_is_marked_as_missed_exactly_where_it_is(bench):
    for rows in SHIPPED["rows"].values():
        for row in rows.values():
            assert row["low"] <= row["median"] <= row["high"]
            assert row["met"] == (row["goal"] is None or row["median"] <= row["goal"])


def test_figure_has_a_bar_for_every_row_and_a_line_for_every_growth(bench):
    left, right = bench.figure(SHIPPED).axes
    assert len(left.patches) == sum(len(rows) for rows in SHIPPED["rows"].values())
    assert len(right.lines) == len(SHIPPED["growth"])


def test_shipped_table_and_figure_at_a_real_size_are_of_the_shipped_numbers(bench):
    import real

    assert (ROOT / "figures" / "real_speed.md").read_text("utf-8") == real.table(REAL)
    bars = [len(ax.patches) for ax in real.figure(REAL).axes]
    assert bars == [len(rows) for rows in REAL["rows"].values()]
    for rows in REAL["rows"].values():
        assert rows.keys() == real.LABELS.keys()
        assert all(row["low"] <= row["median"] <= row["high"] for row in rows.values())


def test_slope_is_the_exponent_of_growth(bench):
    assert bench.slope([[n, 3 * n**1.5] for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_all_installed_engines_compute_the_same_loss_and_gradients(bench):
    assert "largest relative difference" in bench.check(TINY)


@pytest.mark.parametrize(("job", "threads"), [("full", 1), ("qv", 1), ("full", 2), ("generate", 1)])
def test_worker_measures_time_and_memory(bench, job, threads):
    worker = bench.Worker("minilora", job, TINY, threads=threads)
    found = worker.measure(2)
    worker.close()
    assert found["wall"] > 0
    assert found["cpu"] > 0
    assert 10 < found["mib"] < 500
    assert worker.process.returncode == 0


def test_both_sides_of_every_trick_compute_the_same(bench):
    import tricks

    for trick in tricks.tricks():
        slow, fast = trick.without(), trick.with_()
        if slow is None:  # in-place updates of the same numbers, in parts and as a whole
            for parts, whole in zip(tricks.PARTS, tricks.LONG, strict=True):
                np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)
            continue
        pairs = zip(slow, fast, strict=True) if isinstance(slow, list) else [(slow, fast)]
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * np.abs(a).max())


def test_the_tricks_of_the_table_are_those_that_are_measured(bench):
    import tricks

    table = (ROOT / "figures" / "tricks.md").read_text("utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {t.name}" for t in tricks.tricks()]
