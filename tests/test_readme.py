"""What README promises: its table is what was measured, its files exist, its example runs."""

import json
import re
import shlex
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

import minilora as ml
from minilora.cli import main
from minilora.cli.tables import human_bytes
from minilora.experiments.comparison import improvement

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "minilora" / "assets" / "results" / "compare.json").read_text("utf-8"))
ENTRIES = {entry["task"]: entry for entry in RESULTS["tasks"]}


def runs(entry, method):
    return [run for run in entry["runs"] if run["method"] == method]


def cell(entry, method, key, form):
    values = [run[key] for run in runs(entry, method)]
    low, middle, high = (form(f(values)) for f in (min, mean, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def readme_rows():
    """The rows of README's first table, from results/compare.json."""
    entry = ENTRIES["code"]
    size = runs(entry, "full")[0]["total"]

    def row(label, key, form, methods=("full", "lora", "scratch")):
        return f"| {label} | " + " | ".join(cell(entry, m, key, form) for m in methods) + " |"

    new, old = (f"{entry['base'][key]:.3f}" for key in ("test", "old"))
    assert all(run["old_detached"] == entry["base"]["old"] for run in runs(entry, "lora"))
    return [
        row("learning rate", "lr", "{:g}".format),
        row("trainable parameters", "trainable", "{:,.0f}".format),
        row("… of the base model's", "trainable", lambda v: f"{100 * v / size:.1f} %"),
        row("optimizer state", "optimizer_bytes", human_bytes),
        row("on disk", "disk_bytes", human_bytes),
        row("peak memory of a step", "peak_memory_bytes", human_bytes),
        row("time per step", "seconds_per_step", lambda v: f"{1000 * v:.1f} ms"),
        row(f"new task: Python code (base {new})", "test", "{:.3f}".format),
        row(f"old task: English documentation (base {old})", "old", "{:.3f}".format),
        f"| … adapter detached | – | {old}, exactly the base | – |",
    ]


@pytest.mark.parametrize("row", readme_rows())
def test_every_row_of_the_table_is_what_was_measured(row):
    assert row in README


def test_the_sentence_below_the_table_is_what_was_measured():
    entry = ENTRIES["code"]
    share, short = improvement(entry)
    lora, full = runs(entry, "lora")[0], runs(entry, "full")[0]
    part = lora["trainable"] / full["total"]
    seconds = [mean(run["seconds_per_step"] for run in runs(entry, m)) for m in ("lora", "full")]
    sentence = (
        f"{100 * part:.1f} % of the parameters, {100 * share:.0f} % of the improvement, "
        f"{short:.2f} nats short, {100 * seconds[0] / seconds[1]:.0f} % of the time"
    )
    assert sentence in README


def test_shipped_results_come_from_three_seeds_and_say_how():
    assert RESULTS["command"] == "minilora compare --task all --seeds 3"
    for entry in RESULTS["tasks"]:
        assert {run["seed"] for run in entry["runs"]} == {0, 1, 2}


def test_headline_lies_in_the_expected_ranges():
    """Ranges of a prototype in PyTorch with its own base model and corpora: losses within 0.04."""
    code = ENTRIES["code"]
    assert abs(code["base"]["old"] - 1.343) < 0.04
    for run in runs(code, "full"):
        assert abs(run["test"] - 1.63) < 0.04
    for run in runs(code, "lora"):
        assert abs(run["test"] - 1.714) < 0.04
        assert run["trainable"] == 18_432
    share, _ = improvement(code)
    assert share == pytest.approx(0.94, abs=0.015)


def test_speed_table_is_the_benchmarks():
    speed = json.loads((ROOT / "figures" / "speed.json").read_text("utf-8"))
    assert (ROOT / "figures" / "speed.md").read_text("utf-8") in README
    assert f"{speed['date']} on {speed['machine']['cpu']}" in README
    assert f"{speed['rounds']} rounds" in README
    missed = [
        label
        for rows in speed["rows"].values()
        for label, row in rows.items()
        if row["goal"] is not None and row["median"] > row["goal"]
    ]
    assert README.count("**missed**") == len(missed)


def test_every_linked_file_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_of_the_readme_is_understood():
    lines = re.findall(r"^minilora .*?(?= +#|$)", README, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        command, *options = shlex.split(line)[1:]
        with pytest.raises(SystemExit) as stop:
            main([command, *options, "--help"])
        assert stop.value.code == 0


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("steps=300", "steps=3"), {})
    printed = capsys.readouterr().out
    assert "trainable params: 4,096 || all params: 421,376 || trainable%: 0.9721" in printed
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
    again = ml.load_model("docs-tiny")
    ml.load_adapter(again, tmp_path / "my-adapter")
    assert np.isfinite(ml.text_loss(again, ml.load_corpus("prose").val[:5000], 4))
