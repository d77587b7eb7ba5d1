"""Claims about the table of a comparison: its numbers are those of results.json, whole at width 80.

The entries are made by hand, with numbers that are easy to follow into the table.
"""

import io
import math

import pytest
from rich.console import Console

from minilora.cli.terminal.tables import (
    compare_table,
    human_bytes,
    improvement,
    methods_table,
    print_comparison,
    sample_panels,
    summary,
)
from minilora.experiments.comparison import DEFAULT_METHODS
from minilora.methods.registry import LABELS

ADAPTED = {"trainable": 18_432, "old_detached": 1.343}


def run(method, seed=0, **changes):
    return {
        "method": method,
        "seed": seed,
        "lr": 0.001,
        "steps": 300,
        "trainable": 417_280,
        "total": 417_280,
        "optimizer_bytes": 3_338_240,
        "disk_bytes": 1_671_816,
        "peak_memory_bytes": 28_835_840,
        "seconds_per_step": 0.0512,
        "test": 1.6,
        "old": 1.8,
        "old_detached": None,
        "losses": [3.0, 2.5],
        "curve": [(0, 3.0), (300, 1.6)],
    } | changes


def text_entry(runs=None, **changes):
    return {
        "task": "code",
        "about": "English → Python",
        "metric": "nats",
        "base": {"test": 3.0, "old": 1.343, "total": 417_280},
        "runs": runs
        or [
            run("full"),
            run(
                "lora",
                lr=0.01,
                optimizer_bytes=147_456,
                disk_bytes=100_744,
                peak_memory_bytes=21_600_666,
                seconds_per_step=0.0396,
                test=1.712,
                old=1.79,
                **ADAPTED,
            ),
            run("scratch", lr=0.002, test=2.65, old=2.9),
        ],
        "samples": {"def ": {"base": "a", "full": "f(x):", "lora": "g(x):", "scratch": "@@"}},
    } | changes


def word_entry(full, lora, base=0.0, **changes):
    """An entry of a string task: values after tuning, one for each seed."""
    runs = [run("full", seed, test=value) for seed, value in enumerate(full)]
    runs += [run("lora", seed, test=v, **ADAPTED) for seed, v in enumerate(lora)]
    return text_entry(
        runs,
        metric="exact",
        base={"test": base, "old": 1.0, "total": 417_280},
        samples={"<abc>": {"base": "abc", "full": "cba", "lora": "cba"}},
        **changes,
    )


def printed(renderable, width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    if isinstance(renderable, dict):
        print_comparison(renderable, console)
    else:
        console.print(renderable)
    return console.file.getvalue()


def cells(text, label):
    """The cells to the right of the one that holds this label and no more."""
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    (found,) = (row[2:-1] for row in rows if len(row) > 2 and row[1] == label)
    return found


def one_line(text):
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (147_456, "144 KiB"),
        (100_744, "98.4 KiB"),
        (1024**2, "1.0 MiB"),
        (28_835_840, "27.5 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (5000 * 1024**3, "5000 GiB"),
    ],
)
def test_bytes_are_readable(n, text):
    assert human_bytes(n) == text


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("learning rate", ["0.001", "0.01", "0.002"]),
        ("trainable parameters", ["417,280", "18,432", "417,280"]),
        ("of the base's", ["100.0%", "4.4%", "100.0%"]),
        ("optimizer state", ["3.2 MiB", "144 KiB", "3.2 MiB"]),
        ("on disk", ["1.6 MiB", "98.4 KiB", "1.6 MiB"]),
        ("peak memory of a step", ["27.5 MiB", "20.6 MiB", "27.5 MiB"]),
        ("time per step", ["51.2 ms", "39.6 ms", "51.2 ms"]),
        ("new task", ["3.000 → 1.600", "3.000 → 1.712", "2.650"]),
        ("old task", ["1.343 → 1.800", "1.343 → 1.790", "2.900"]),
        ("adapter detached", ["–", "1.343 = the base", "–"]),
    ],
)
def test_table_of_one_seed_has_the_numbers_of_the_entry(label, expected):
    assert cells(printed(compare_table(text_entry())), label) == expected


def test_table_says_what_was_done_and_which_way_is_better():
    text = printed(compare_table(text_entry()))
    assert "English → Python: 300 steps, 1 seed" in text
    assert "nats per character, lower is better" in text
    assert "full" in text and "LoRA" in text and "from scratch" in text


def test_exact_match_is_in_per_cent_and_higher_is_better():
    text = printed(compare_table(word_entry([0.995], [0.989])))
    assert cells(text, "new task") == ["0.0% → 99.5%", "0.0% → 98.9%"]
    assert cells(text, "old task")[0] == "100.0% → 180.0%"  # of 1.8, as it stands in the entry
    assert "share of answers exactly right, higher is better" in " ".join(text.split())


def three_seeds():
    lora = [
        run("lora", seed, test=value, seconds_per_step=0.04, lr=0.01, **ADAPTED)
        for seed, value in enumerate([1.721, 1.712, 1.711])
    ]
    full = [run("full", seed, test=v) for seed, v in enumerate([1.629, 1.627, 1.634])]
    return text_entry([*full, *lora])


def test_three_seeds_show_their_mean_and_their_range():
    text = printed(compare_table(three_seeds()), width=120)
    assert "mean of 3 seeds (lowest to highest)" in text
    assert cells(text, "new task") == [
        "3.000 → 1.630 (1.627 to 1.634)",
        "3.000 → 1.715 (1.711 to 1.721)",
    ]
    assert cells(text, "learning rate") == ["0.001", "0.01"]  # no range where there is none
    assert cells(text, "adapter detached") == ["–", "1.343 = the base"]


def test_range_too_small_to_be_seen_is_not_shown():
    runs = [run("full"), *(run("lora", s, test=1.7 + s / 1e5, **ADAPTED) for s in range(2))]
    assert cells(printed(compare_table(text_entry(runs))), "new task")[1] == "3.000 → 1.700"


@pytest.mark.parametrize("values", [(1.343000001,), (1.343, 1.343000001)])
def test_detached_is_called_the_base_only_if_it_equals_it_exactly(values):
    runs = [run("lora", s, **ADAPTED | {"old_detached": v}) for s, v in enumerate(values)]
    text = printed(compare_table(text_entry([run("full"), *runs])))
    assert cells(text, "adapter detached") == ["–", "1.343"]
    assert "= the base" not in text


@pytest.mark.parametrize(
    ("entry", "numbers"),
    [(text_entry(), "1.600 1.712 2.650 27.5"), (three_seeds(), "1.627 1.634 1.715 1.711 1.721")],
    ids=["1 seed", "3 seeds"],
)
def test_width_80_cuts_no_number(entry, numbers):
    text = printed(entry)
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for number in ["417,280", "18,432", "100.0%", "1.343", *numbers.split()]:
        assert number in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_console_without_these_symbols_gets_the_numbers_all_the_same(encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    print_comparison(text_entry(), Console(file=file, width=80))
    file.flush()
    assert b"3.000 ? 1.712" in file.buffer.getvalue() and b"18,432" in file.buffer.getvalue()


def test_share_of_the_improvement_of_nats():
    share, short = improvement(text_entry())
    assert share == pytest.approx((3.0 - 1.712) / (3.0 - 1.6))
    assert short == pytest.approx(0.112)


def test_share_of_the_improvement_of_exact_match_is_of_the_means_over_seeds():
    share, short = improvement(word_entry([0.8, 1.0], [0.5, 0.7], base=0.1))
    assert share == pytest.approx(0.5 / 0.8) and short == pytest.approx(0.3)


@pytest.mark.parametrize(
    "entry",
    [
        word_entry([0.0], [0.0]),
        word_entry([0.2], [0.4], base=0.3),
        text_entry([run("full", test=3.0), run("lora", **ADAPTED)]),
        text_entry([run("full", test=3.5), run("lora", **ADAPTED)]),
    ],
    ids=["still 0", "fell", "same loss", "higher loss"],
)
def test_no_share_is_claimed_of_an_improvement_that_is_not_there(entry):
    assert math.isnan(improvement(entry)[0])
    assert summary(entry) == (
        "LoRA trained 4.4% of the parameters; so far full fine-tuning has not improved on the "
        "base model."
    )
    assert "nan" not in printed(entry)


def test_summary_is_one_sentence_in_the_tasks_own_unit():
    assert summary(text_entry()) == (
        "LoRA trained 4.4% of the parameters and reached 92% of full fine-tuning's improvement, "
        "0.11 nats short of it; the base model is untouched."
    )
    assert "reached 100% of full fine-tuning's improvement, level with it; the base" in summary(
        word_entry([1.0], [1.0])
    )
    assert "reached 95% of full fine-tuning's improvement, 5.0 points short of it" in summary(
        word_entry([1.0], [0.95])
    )


def test_everything_is_printed_in_order_table_summary_samples():
    text = one_line(printed(text_entry()))
    assert text.index("trainable parameters") < text.index("LoRA trained 4.4%")
    panels = [f"─ {name} ─" for name in ("base model", *(LABELS[m] for m in DEFAULT_METHODS))]
    places = [text.index(panel) for panel in panels]
    assert places == sorted(places) and places[0] > text.index("LoRA trained 4.4%")
    assert text.index("def f(x):") in range(places[1], places[2])
    assert text.index("def g(x):") in range(places[2], places[3])


def many_methods():
    runs = [
        run("full", seed=0),
        run("bitfit", 0, lr=0.01, trainable=2_944, test=2.1, disk_bytes=12_000),
        run("bitfit", 1, lr=0.01, trainable=2_944, test=2.3, disk_bytes=12_000),
        run("prefix", lr=0.03, trainable=18_432, seconds_per_step=0.06, old=1.5),
        run("lora", lr=0.02, **ADAPTED),
    ]
    methods = ("base", "full", "bitfit", "prefix", "lora")
    return text_entry(runs, samples={"def ": {method: f"by {method}" for method in methods}})


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (
            "full fine-tuning",
            ["0.001", "417,280", "100.0%", "1.6 MiB", "51.2", "1.600", "1.800"],
        ),
        (
            "BitFit",
            ["0.01", "2,944", "0.7%", "11.7 KiB", "51.2", "2.200 (2.100 to 2.300)", "1.800"],
        ),
        ("prefix tuning", ["0.03", "18,432", "4.4%", "1.6 MiB", "60.0", "1.600", "1.500"]),
        ("LoRA", ["0.02", "18,432", "4.4%", "1.6 MiB", "51.2", "1.600", "1.800"]),
    ],
)
def test_table_of_many_methods_has_a_row_for_each(label, expected):
    text = printed(methods_table(many_methods()), width=140)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert " ".join([label, *expected]) in lines


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_of_many_methods_is_whole_at_every_width(width):
    runs = [run(method, lr=0.01, test=2.1) for method in ("full", "lora", "dora", "adapter")]
    samples = {"def ": dict.fromkeys(("base", "full", "lora", "dora", "adapter"), "")}
    text = printed(text_entry(runs, samples=samples), width=width)
    assert text.count("417,280") == 4 and text.count("2.100") == 4 and "…" not in text
    assert ("  trainable: 417,280" in text) is (width == 40)  # rows become blocks


def test_table_of_many_methods_says_what_was_done_and_where_the_base_stands():
    text = one_line(printed(methods_table(many_methods()), width=140))
    assert "English → Python: 300 steps, mean of 2 seeds (lowest to highest)" in text
    assert "nats per character, lower is better" in text
    assert "The base model: new task 3.000, old task 1.343." in text


def test_more_than_three_methods_are_rows_and_up_to_three_are_columns():
    text = printed(many_methods(), width=140)
    assert "trainable parameters" not in text and "ms per" in text
    assert "LoRA trained 4.4% of the parameters" in text  # beside full fine-tuning
    assert all(f"by {name}" in text for name in ("base", "full", "bitfit", "prefix", "lora"))
    entry = text_entry([run("bitfit")], samples={"def ": {"base": "a", "bitfit": "b"}})
    text = printed(entry)
    assert cells(text, "trainable parameters") == ["417,280"] and "LoRA" not in text


def test_answers_to_string_prompts_stand_in_one_row():
    assert cells(printed(word_entry([1.0], [1.0])), "<abc>") == ["abc", "cba", "cba"]


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/nothing]", ":smile: [link=a]b", "[[1]\\[2]"])
def test_text_that_looks_like_markup_is_printed_as_it_is(text):
    texts = {"base": text, "full": text, "lora": text, "scratch": text}
    assert printed(text_entry(samples={"": texts})).count(text) == 4
    words = word_entry([1.0], [1.0])
    words["samples"] = {text: {"base": text, "full": text, "lora": text}}
    assert printed(words, width=120).count(text) == 4


@pytest.mark.parametrize("name", ["[bold].txt", "[/a] b.txt"])
def test_name_of_a_text_that_looks_like_markup_is_printed_as_it_is(name):
    assert f"{name}: 300 steps" in printed(compare_table(text_entry(about=name)))


def test_methods_have_their_colours_on_a_terminal():
    for part in (compare_table(text_entry()), sample_panels(text_entry())):
        text = printed(part, force_terminal=True, color_system="standard")
        assert "\x1b[34m" in text and "\x1b[33m" in text  # full blue, LoRA yellow, as in figures
