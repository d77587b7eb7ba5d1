"""What README promises: its table is what was measured, its files exist, its example runs."""

import ast
import itertools
import json
import re
import shlex
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from suites.suite import shipped
from test_imports import ORDER

import minilora as ml
from minilora.cli import main
from minilora.cli.terminal.tables import human_bytes
from minilora.experiments.comparison import improvement
from minilora.learn.check import EXERCISES
from minilora.learn.exam.cards import load_cards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
GALLERY = (ROOT / "figures" / "README.md").read_text("utf-8")
PACKAGE = ROOT / "minilora"
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
    assert (ROOT / "figures" / "speed.md").read_text("utf-8") in GALLERY
    assert f"{speed['date']} on {speed['machine']['cpu']}" in GALLERY
    assert f"{speed['rounds']} rounds" in GALLERY
    missed = [
        label
        for rows in speed["rows"].values()
        for label, row in rows.items()
        if row["goal"] is not None and row["median"] > row["goal"]
    ]
    assert GALLERY.count("**missed**") == len(missed)


@pytest.mark.parametrize("counts", shipped(), ids=lambda counts: counts["command"])
def test_every_promise_stands_with_the_counts_of_its_last_whole_run(counts):
    cells = (counts["promise"], f"{counts['trials']:,}", counts["faults"], f"`{counts['command']}`")
    assert "| " + " | ".join(map(str, cells)) + " |" in README
    assert (ROOT / counts["command"].split()[1]).is_file()
    assert sum(counts["ends"].values()) == counts["trials"]


def test_speed_in_one_sentence_is_the_benchmarks():
    rows = json.loads((ROOT / "figures" / "speed.json").read_text("utf-8"))["rows"]

    def span(*labels):
        medians = [rows[shape][label]["median"] for shape in rows for label in labels
                   if label in rows[shape]]  # fmt: skip
        return f"{min(medians):.2f} to {max(medians):.2f}"

    full = span("full / PyTorch eager, 1 thread")
    lora = span("LoRA q,v / PyTorch eager's", "LoRA all / PyTorch eager's")
    token = span("time per token / PyTorch")
    assert f"step takes {full} of PyTorch's time on one core, a LoRA step {lora}" in README
    assert f"a generated token {token}" in README


def test_samples_are_those_of_the_shipped_results():
    texts = ENTRIES["code"]["samples"]["def "]
    (block,) = re.findall(r"```text\nbase model(.*?)```", README, re.DOTALL)
    shown = re.split(r"^(?:full fine-tuning|LoRA, r = 4) ", block, flags=re.MULTILINE)
    for lines, method in zip(shown, ("base", "full", "lora"), strict=True):
        written = [line.strip() for line in lines.strip().splitlines()]
        assert written and all(line in f"def {texts[method]}" for line in written)


def first_sentence(path):
    """What a file says of itself: in a docstring, a script of the page in its first comment."""
    source = path.read_text("utf-8")
    if path.suffix == ".js":
        comment = itertools.takewhile(lambda line: line.startswith("//"), source.splitlines())
        text = "\n".join(line.removeprefix("//").strip() for line in comment)
    else:
        text = ast.get_docstring(ast.parse(source)) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-zA-Z)\]`])(?<! al)\.(?: |$)", paragraph)[0].rstrip(".")


def test_the_tree_has_a_line_for_every_file_with_what_the_file_says_of_itself():
    tree = README[README.index("```text\nminilora/") :]
    wanted = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js")]:
        is_room = path.name == "__init__.py"
        named = path.parent if is_room else path
        indent = 2 * len(named.relative_to(PACKAGE).parts)
        if named != PACKAGE and path.name != "__main__.py":
            name = " " * indent + named.name + "/" * is_room
            wanted.add(f"{name:<28}{first_sentence(path)}")
    shown = {line for line in tree.splitlines() if re.match(r" +\w+(\.py|\.js|/) ", line)}
    assert wanted - shown == set()
    assert {line for line in shown - wanted if "assets/" not in line} == set()


def test_the_order_of_the_rooms_is_the_one_that_is_tested():
    line = " < ".join(", ".join(rooms) for rooms in ORDER)
    assert f"    {line}\n" in README


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
    assert "LoraLinear(128 -> 128, default: r=4, s=2, active)" in printed
    assert "421,376" in printed and "\ndef " in printed
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
    again = ml.load_model("docs-tiny")
    ml.load_adapter(again, tmp_path / "my-adapter")
    assert np.isfinite(ml.text_loss(again, ml.load_corpus("prose").val[:5000], 4))


def test_the_number_of_exercises_is_that_of_the_checkers():
    assert f"{len(EXERCISES)} exercises" in README


def test_the_number_of_cards_is_that_of_the_file():
    cards = load_cards()
    assert (
        README.count(f"{len(cards)} exam cards") == 1 and f"first of {len(cards)} cards" in README
    )
    quoting = sum(card.topic == "texts" for card in cards)
    assert quoting == 12 and "Twelve of the cards quote published texts" in README
