"""Claims about the figures of the studies: they draw the rows' means and ranges, legibly.

The rows are made by hand, with the settings of the real studies, so that every figure has as many
lines and labels as it really has. What is drawn is read back from matplotlib's objects.
"""

import itertools
import math
from functools import cache

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from minilora.experiments.rows import select
from minilora.methods.registry import LABELS, METHODS
from minilora.plots.house_style import COLORS, FAMILY_COLORS, rank_color, save_figure
from minilora.studies import STUDIES, how_few_numbers, shipped_rows, study_figures
from minilora.studies.alpha_sweep import plot_alpha_rules, plot_alphas
from minilora.studies.delta_over_training import plot_along
from minilora.studies.forgetting_frontier import plot_forgetting_frontier
from minilora.studies.intruders_by_lambda import LAMBDAS, plot_trade
from minilora.studies.known_rank_teacher import plot_known_rank_teacher
from minilora.studies.learning_rate_sweep import plot_learning_rate_sweep
from minilora.studies.leave_one_out import plot_leave_one_out
from minilora.studies.methods import THIRTEEN
from minilora.studies.parameter_counts import plot_parameter_counts
from minilora.studies.rank_sweep import plot_rank_sweep, rank_sweep_figure
from minilora.studies.small_data import plot_overfitting, plot_small_data
from minilora.studies.spectrum import plot_spectrum, plot_spectrum_table, spectrum_figure
from minilora.studies.subspace_similarity import plot_subspace_similarity
from minilora.studies.svd_starts import at_best_rate
from minilora.studies.truncation import plot_truncation
from minilora.studies.which_weights import PLACES
from minilora.studies.without_regret import (
    BEST,
    plot_batches,
    plot_longer,
    plot_rates,
    rates_by_rank,
)

SEEDS = range(2)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in what the eye takes for lightness
TRAINABLE = {"full": 417_280, "last-block": 198_272, "head": 12_544, "bitfit": 2_432}


def rows_of(name):
    """Rows as the study's run function makes them, with made-up qualities."""
    study = STUDIES[name]
    if name == "parameter_counts":
        return [row for settings in study.settings(SEEDS) for row in study.run(**settings)]
    return [row for settings in study.settings(SEEDS) for row in FAKE[name](settings)]


def tuned(settings):
    method = settings.get("method", "lora")
    r = None if method == "full" else settings.get("r", 4)
    alpha, root = settings.get("lora_alpha", 8), settings.get("use_rslora", False)
    return {
        "task": settings["task"],
        "metric": "nats" if settings["task"] == "code" else "exact",
        "method": method,
        "seed": settings["seed"],
        "lr": settings.get("lr", 0.01),
        "r": r,
        "s": r and alpha / (math.sqrt(r) if root else r),
        "trainable": TRAINABLE.get(method, 18_432),
    }


def quality(settings):
    """Best at the rate 0.003, better with r, worse for seed 1; a loss for code, else a share."""
    off = abs(math.log10(settings.get("lr", 0.003) / 0.003))
    loss = 1.5 + 0.2 * off + 0.1 / (settings.get("r") or 8) + 0.02 * settings["seed"]
    return loss if settings["task"] == "code" else 2.3 - loss


def fake_quality(settings):
    value = quality(settings)
    place = {"place": settings["place"]} if "place" in settings else {}
    return [tuned(settings) | place | {"val": value, "test": value + 0.01, "old": value / 3}]


def fake_teacher(settings):
    bound = max(settings["k"] - settings["r"], 0) / 64
    return [settings | {"bound": bound, "loss": 1.01 * bound + 1e-9 * (1 + settings["seed"])}]


def fake_frontier(settings):
    curve = [
        [step, 1.5 + 1.5 / (1 + settings["lr"] * step) + 0.01 * settings["seed"],
         1.35 + settings["lr"] * step / 4]
        for step in range(0, 601, 50)
    ]  # fmt: skip
    return [tuned(settings) | {"curve": curve}]


def fake_small_data(settings):
    n = settings["characters"]
    low = 1.5 + 2_000 / n + 0.01 * settings["seed"]
    curve = [[0, 3.0], [25, low], [300, low + 900 / n]]
    return [tuned(settings) | {"characters": n, "curve": curve, "test": low + 1_000 / n}]


def fake_spectrum(settings):
    d = 128 if settings["task"] == "code" else 64
    rank = min(settings.get("r", d), d)
    rows = []
    for size, path in ((1.0, "layers.0.attn.q_proj"), (3.0, "layers.0.mlp.up_proj")):
        values = [size * 0.9**i for i in range(rank)]
        measures = {"effective_rank": rank / 2 + size, "stable_rank": 2.0, "k90": 3}
        measures |= {"relative_norm": 0.25, "intruders": 1, "singular_values": values}
        rows.append(tuned(settings) | {"path": path} | measures)
    return rows


def fake_truncation(settings):
    ks = (0, 1, 2, 4, 8, 16, 32, 64) + ((128,) if settings["task"] == "code" else ())
    share = {k: k / (k + 4) - 0.01 * settings["seed"] for k in ks}
    is_text = settings["task"] == "code"
    return [tuned(settings) | {"k": k, "test": 3.5 - 2 * v if is_text else max(v, 0)}
            for k, v in share.items()]  # fmt: skip


def fake_subspace(settings):
    d = 128 if settings["task"] == "code" else 64
    rows = []
    for i in range(1, 9):
        for j in (1, 2, 4, 8, 16, 32, 64):
            chance = max(i, j) / d
            phi = chance + (1 - chance) * (0.3 + 0.01 * settings["seed"]) / i
            rows.append(settings | {"d": d, "i": i, "j": j, "phi": phi, "phi_start": chance})
    return rows


def fake_methods(settings):
    base = {"base_test": 3.0, "base_old": 1.2} if settings["task"] == "code" else {}
    return [row | ({"base_test": 0.0, "base_old": 1.0} | base) for row in fake_quality(settings)]


def fake_regret(settings):
    value = quality(settings)
    about = {key: settings.get(key) for key in ("part", "batch", "place")}
    about |= {} if about["place"] else {"place": "all"}
    curve = [[step, value + 1 / step] for step in (10, 100, 600)]
    return [tuned(settings) | about | {"val": value, "test": value + 0.01, "curve": curve}]


def fake_lambda(settings):
    return [
        tuned(settings) | {"scaled": scaled, "factor": factor, "intruders": 2 * factor}
        | {"test": 3 - factor + 0.01 * settings["seed"], "old": 1.3 + factor / 3}
        for scaled in ("change", "intruders") for factor in LAMBDAS
    ]  # fmt: skip


def fake_delta(settings):
    rows = []
    for step in (1, 10, 100, 300):
        measures = {"effective_rank": 4 + step / 10, "relative_norm": step / 1000}
        measures |= {"cosine": step / 300 - 0.01 * settings["seed"]}
        values = [step * 0.5**i for i in range(4)]
        about = {"optimizer": settings["optimizer"], "step": step, "singular_values": values}
        rows.append(tuned(settings) | about | measures)
    return rows


def fake_few(settings):
    trained = {"ia3": 1_536, "vera": 3_840, "lora-xs": 12 * (settings.get("r") or 0) ** 2}
    (row,) = fake_quality(settings)
    r = settings.get("r")
    return [row | {"r": r, "trainable": trained.get(row["method"], 640 * (r or 0))}]


def fake_rewarded(settings):
    end = 0.6 if settings["method"] == "full" else 0.5
    curve = [[step, 0.25 + end * step / 400, 1 - step / 500, 0.3] for step in range(0, 201, 40)]
    return [tuned(settings) | {"r": settings["r"], "curve": curve}]


def fake_start(settings):
    value = quality(settings) + len(settings["start"]) / 50
    curve = [[step, value + 1 / step] for step in (10, 100, 300)]
    measured = {"val": value, "test": value + 0.01, "old": value / 3}
    return [tuned(settings) | measured | {"start": settings["start"], "curve": curve}]


def fake_combined(settings):
    names = ("reverse", "swap", "next", "ends")
    metric = "exact" if settings["model"] == "words-tiny" else "nats"
    rows = []
    for how in ("sum of ΔW", "mean of ΔW", "means of A and B"):
        for n in range(5) if how == "sum of ΔW" else (4,):
            for chosen in itertools.combinations(names, n):
                for task in (*names, "old"):
                    own = task in chosen
                    row = {"how": how, "adapters": " + ".join(chosen), "together": n, "own": own}
                    row |= {"task": task, "metric": metric}
                    rows.append(settings | row | {"test": 0.9 * own / n if own else 0.02 * n})
    return rows


FAKE = {
    "leave_one_out": fake_combined,
    "rl_rank_one": fake_rewarded,
    "how_few_numbers": fake_few,
    "svd_starts": fake_start,
    "delta_over_training": fake_delta,
    "without_regret": fake_regret,
    "intruders_by_lambda": fake_lambda,
    "methods": fake_methods,
    "known_rank_teacher": fake_teacher,
    "forgetting_frontier": fake_frontier,
    "small_data": fake_small_data,
    "spectrum": fake_spectrum,
    "truncation": fake_truncation,
    "subspace_similarity": fake_subspace,
} | dict.fromkeys(
    ("rank_sweep", "learning_rate_sweep", "alpha_sweep", "which_weights"), fake_quality
)
RESULTS = {name: rows_of(name) for name in STUDIES}


def new_figure(name):
    study = STUDIES[name]
    return study.figure(*(RESULTS[used] for used in (name, *study.beside)))


@cache
def figure_of(name):
    """Made once for all tests, which only look at it."""
    return new_figure(name)


def pick(name, **same):
    return [row for row in RESULTS[name] if all(row[key] == value for key, value in same.items())]


def axes():
    return Figure().subplots()


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def values_at(rows, x, y):
    """{value of x: [y of each row there]}"""
    return {at: [row[y] for row in rows if row[x] == at] for at in sorted({row[x] for row in rows})}


def assert_draws(ax, label, rows, x, y):
    """The line with this label goes through the means, and a band of its colour holds the range."""
    drawn, expected = line(ax, label), values_at(rows, x, y)
    assert len(expected) > 1
    np.testing.assert_array_equal(drawn.get_xdata(), list(expected))
    np.testing.assert_allclose(drawn.get_ydata(), [np.mean(v) for v in expected.values()])
    same = [b for b in ax.collections if to_hex(b.get_facecolor()[0]) == to_hex(drawn.get_color())]
    bands = [band.get_paths()[0].vertices for band in same]
    for at, values in expected.items():
        ranges = [{low_high for at_x, low_high in band if at_x == at} for band in bands]
        assert {min(values), max(values)} in ranges, (label, at)


def texts_of(figure):
    found = [*figure.texts]
    for ax in figure.axes:
        found += [t for t in ax.findobj(Text) if t.get_text() == ax.get_title(loc="left")]
        found += ax.texts
        if ax.axison:
            found += [ax.xaxis.label, ax.yaxis.label]
            for axis, ticks in ((ax.xaxis, ax.get_xticklabels()), (ax.yaxis, ax.get_yticklabels())):
                low, high = sorted(axis.get_view_interval())
                at = 0 if axis is ax.xaxis else 1
                found += [t for t in ticks if low <= t.get_position()[at] <= high]
    for legend in figure.legends:
        found += legend.get_texts()
    found += [t for t in figure.findobj(Text) if t.get_text() == figure.get_suptitle()]
    return [t for t in found if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("name", STUDIES)
def test_no_text_covers_another_or_leaves_the_figure(name):
    figure = figure_of(name)
    figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for t in set(texts_of(figure))]
    assert len(boxes) > 15
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{first!r} covers {second!r}"
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("name", STUDIES)
def test_figure_names_its_axes(name):
    for ax in figure_of(name).axes:
        assert ax.get_xlabel() or not ax.axison


def test_figure_is_the_same_bytes_each_time(tmp_path):
    for i in range(2):
        save_figure(new_figure("rank_sweep"), tmp_path / f"{i}.png")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


@pytest.mark.parametrize("name", STUDIES)
def test_number_of_seeds_is_said_once(name):
    figure = figure_of(name)
    said = [t.get_text() for t in texts_of(figure) if "2 seeds" in t.get_text()]
    assert len(said) == (0 if name == "parameter_counts" else 1)


def test_one_seed_is_not_called_a_mean():
    figure = rank_sweep_figure(pick("rank_sweep", seed=0))
    assert not [t for t in figure.texts if "seed" in t.get_text()]


@pytest.mark.parametrize(
    ("name", "study", "plot"),
    [
        ("rank-sweep", "rank_sweep", plot_rank_sweep),
        ("learning-rate-sweep", "learning_rate_sweep", plot_learning_rate_sweep),
    ],
)
def test_full_and_lora_keep_their_two_colours(name, study, plot):
    ax = plot(pick(study, task="code"), axes())
    labels = {t.get_label().split(",")[0]: t.get_color() for t in ax.lines}
    assert to_rgb(labels[LABELS["full"]]) == to_rgb(COLORS["full"])
    assert to_rgb(labels[LABELS["lora"]]) == to_rgb(COLORS["lora"])


def test_higher_ranks_are_darker_shades_of_orange_and_4_is_loras_own():
    assert to_hex(rank_color(4)) == to_hex(COLORS["lora"])
    lightness = [np.dot(to_rgb(rank_color(r)), GREY) for r in (1, 2, 4, 8, 16, 32, 64)]
    assert all(a - b > 0.05 for a, b in itertools.pairwise(lightness))
    assert 0 < np.dot(to_rgb(rank_color(4096)), GREY) < 1  # no rank is black or white
    for r in (1, 4, 16, 64, 4096):
        red, green, blue = to_rgb(rank_color(r))
        assert red > green > blue


def test_ranks_differ_in_line_and_marker_too():
    ax = plot_spectrum(pick("spectrum", task="code"), axes())
    assert len({drawn.get_marker() for drawn in ax.lines}) == len(ax.lines) == 5
    dashed = [drawn.get_linestyle() for drawn in ax.lines[1:]]
    assert dashed[0] == "-" and set(dashed[1:]) == {"--"}


@pytest.mark.parametrize("k", [4, 16])
def test_teacher_draws_loss_by_rank_and_the_least_possible_below_k(k):
    rows = pick("known_rank_teacher", k=k)
    ax = plot_known_rank_teacher(rows, axes())
    for spectrum in ("flat", "geometric"):
        same = [row for row in rows if row["spectrum"] == spectrum]
        assert_draws(ax, f"LoRA, {spectrum} spectrum", same, "r", "loss")
    bounds = [drawn for drawn in ax.lines if drawn.get_marker() == "_" and len(drawn.get_xdata())]
    assert len(bounds) == 2
    below = sorted({row["r"] for row in rows if row["r"] < k})
    for drawn in bounds:
        assert list(drawn.get_xdata()) == below
        assert list(drawn.get_ydata()) == [(k - r) / 64 for r in below]


@pytest.mark.parametrize("task", ["code", "reverse", "sort"])
def test_rank_sweep_draws_lora_by_rank_and_full_as_a_level(task):
    rows = pick("rank_sweep", task=task)
    ax = plot_rank_sweep(rows, axes())
    lora = [row for row in rows if row["method"] == "lora"]
    assert_draws(ax, LABELS["lora"], lora, "r", "test")
    full = [row["test"] for row in rows if row["method"] == "full"]
    assert line(ax, LABELS["full"]).get_ydata() == pytest.approx([np.mean(full)] * 2)
    (level,) = ax.patches
    assert (level.get_y(), level.get_y() + level.get_height()) == pytest.approx(
        (min(full), max(full))
    )
    ax.figure.draw_without_rendering()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "4", "8", "16", "64"]


def test_units_are_nats_for_texts_and_per_cent_for_string_tasks():
    figure = rank_sweep_figure(RESULTS["rank_sweep"])
    code, reverse, _ = figure.axes
    assert code.get_ylabel() == "test loss (nats per character)"
    assert reverse.get_ylabel() == "test: answers exactly right"
    figure.draw_without_rendering()
    assert {"0%", "100%"} <= {t.get_text() for t in reverse.get_yticklabels()}


def test_a_users_text_called_sort_is_measured_in_nats_all_the_same():
    rows = [row | {"task": "sort"} for row in pick("rank_sweep", task="code")]
    ax = plot_rank_sweep(rows, axes())
    assert ax.get_ylabel() == "test loss (nats per character)"
    assert not any("%" in t.get_text() for t in ax.get_yticklabels())


def test_rates_that_are_equally_good_are_all_ringed():
    rows = [
        row | {"val": min(row["val"], 0.7)} for row in pick("learning_rate_sweep", task="reverse")
    ]
    ax = plot_learning_rate_sweep(rows, axes())
    full, lora = [d for d in ax.lines if d.get_markersize() == 13 and len(d.get_xdata())]
    assert list(full.get_xdata()) == [0.002, 0.003]
    assert list(lora.get_xdata()) == [0.003]


@pytest.mark.parametrize("task", ["code", "reverse"])
def test_learning_rates_draw_full_and_lora_and_ring_the_best(task):
    rows = pick("learning_rate_sweep", task=task)
    ax = plot_learning_rate_sweep(rows, axes())
    for method, label in (("full", LABELS["full"]), ("lora", LABELS["lora"])):
        same = [row for row in rows if row["method"] == method]
        assert_draws(ax, label, same, "lr", "val")
    rings = [drawn for drawn in ax.lines if drawn.get_markersize() == 13 and len(drawn.get_xdata())]
    assert [list(ring.get_xdata()) for ring in rings] == [[0.003], [0.003]]
    for ring, method in zip(rings, ("full", "lora"), strict=True):
        best = [row["val"] for row in rows if row["method"] == method and row["lr"] == 0.003]
        assert ring.get_ydata() == pytest.approx([np.mean(best)])
    assert len(ax.lines) == 5  # two lines, two rings, the legend's: no other method


def test_methods_stand_in_order_of_what_they_train():
    figure = figure_of("methods")
    new, old, *_ = figure.axes
    figure.draw_without_rendering()
    names = [t.get_text() for t in new.get_yticklabels()]
    assert names[0] == "full fine-tuning: 417,280" and names[-1] == "BitFit: 2,432"
    assert len(names) == 13 and new.get_ylim() == old.get_ylim()
    families = [t.get_text() for t in figure.legends[0].get_texts()]
    assert families == ["full", "selective", "additive", "reparameterized"]


@pytest.mark.parametrize("task", ["code", "reverse"])
def test_methods_are_drawn_on_the_new_task_and_on_the_old_one(task):
    panels = figure_of("methods").axes[slice(2) if task == "code" else slice(2, 4)]
    order = sorted(THIRTEEN, key=lambda name: -TRAINABLE.get(name, 18_432))
    for ax, key in zip(panels, ("test", "old"), strict=True):
        for i, method in enumerate(order):
            values = [row[key] for row in pick("methods", task=task, method=method)]
            seeds, middle = ax.lines[2 * i : 2 * i + 2]
            assert list(seeds.get_xdata()) == [min(values), max(values)]
            assert middle.get_xdata() == pytest.approx([np.mean(values)])
            assert list(middle.get_ydata()) == [i]
            assert middle.get_color() == FAMILY_COLORS[METHODS[method].family]


def test_every_panel_of_the_methods_shows_the_base_model():
    bases = [3.0, 1.2, 0.0, 1.0]
    for ax, base in zip(figure_of("methods").axes, bases, strict=True):
        (level,) = [d for d in ax.lines if d.get_linestyle() == ":"]
        assert set(level.get_xdata()) == {base}
        assert "base model" in [t.get_text() for t in ax.texts]


@pytest.mark.parametrize("task", ["code", "reverse"])
def test_alpha_rules_meet_at_r_4(task):
    rows = pick("alpha_sweep", task=task)
    ax = plot_alpha_rules(rows, axes())
    for label, scale in (
        ("/r, alpha = 8", lambda r: 8 / r),
        ("/√r, alpha = 4", lambda r: 4 / r**0.5),
    ):
        same = [row for row in rows if row["s"] == scale(row["r"])]
        assert {row["r"] for row in same} == {1, 4, 16, 64}
        assert_draws(ax, f"LoRA, s = alpha{label}", same, "r", "test")


def test_alphas_are_those_of_r_4():
    ax = plot_alphas(pick("alpha_sweep", task="code"), axes())
    (drawn,) = ax.lines
    np.testing.assert_array_equal(drawn.get_xdata(), [2, 8, 32])
    expected = np.mean([row["test"] for row in pick("alpha_sweep", task="code", r=4, s=8.0)])
    assert drawn.get_ydata()[2] == pytest.approx(expected)


def test_both_panels_of_a_task_have_one_scale_of_quality():
    rules, alphas, *_ = figure_of("alpha_sweep").axes
    assert rules.get_ylim() == alphas.get_ylim()


def test_places_stand_in_the_same_order_for_every_task():
    figure = figure_of("which_weights")
    figure.draw_without_rendering()
    for ax, task in zip(figure.axes, ("code", "sort"), strict=True):
        names = [t.get_text().split("  ")[0] for t in ax.get_yticklabels()]
        assert names == list(PLACES)
        points = [drawn for drawn in ax.lines if drawn.get_marker() == "s"]
        for i, (point, place) in enumerate(zip(points, PLACES, strict=True)):
            values = [row["test"] for row in pick("which_weights", task=task, place=place)]
            assert point.get_xdata() == pytest.approx([np.mean(values)])
            assert list(point.get_ydata()) == [i]
            whisker = ax.lines[2 * i]
            assert list(whisker.get_xdata()) == [min(values), max(values)]


def test_budget_is_in_the_panels_title():
    code, sort = figure_of("which_weights").axes
    assert code.get_title(loc="left") == "Python code: ≈ 18,400 parameters"
    assert sort.get_title(loc="left") == "Sort a word: ≈ 18,400 parameters"


def test_frontier_draws_the_mean_of_the_curves_after_the_base():
    rows = RESULTS["forgetting_frontier"]
    ax = plot_forgetting_frontier(rows, axes())
    drawn = line(ax, "full fine-tuning, rate 0.001")
    same = [row for row in rows if row["lr"] == 0.001]
    curves = np.array([row["curve"] for row in same])
    np.testing.assert_allclose(drawn.get_xdata(), curves[:, 1:, 1].mean(axis=0))
    np.testing.assert_allclose(drawn.get_ydata(), curves[:, 1:, 2].mean(axis=0))
    assert drawn.get_markevery() == [-1]  # its end is marked
    ends = ax.lines[ax.lines.index(drawn) + 1]
    points = list(zip(ends.get_xdata(), ends.get_ydata(), strict=True))
    assert points == [tuple(row["curve"][-1][1:]) for row in same]


def test_frontier_says_where_the_base_was_and_where_better_is():
    ax = plot_forgetting_frontier(RESULTS["forgetting_frontier"], axes())
    _, new, old = RESULTS["forgetting_frontier"][0]["curve"][0]
    (level,) = [d for d in ax.lines if list(d.get_ydata()) == [old, old]]
    assert level.get_linestyle() == ":"
    texts = {t.get_text(): t for t in ax.texts}
    assert f"base model: {old:.2f} on the old task, {new:.2f} on the new" in texts
    arrow = texts["better"]
    assert arrow.xy[0] < arrow.xyann[0] and arrow.xy[1] < arrow.xyann[1]  # to the lower left
    assert "from step 50 on" in ax.get_xlabel()


def test_frontiers_rates_are_steps_of_two_colours():
    ax = plot_forgetting_frontier(RESULTS["forgetting_frontier"], axes())
    means = [d for d in ax.lines if "rate" in str(d.get_label())]
    assert [d.get_label().split(", ")[0] for d in means] == ["full fine-tuning"] * 3 + ["LoRA"] * 2
    lightness = [np.dot(to_rgb(d.get_color()), GREY) for d in means]
    assert lightness[0] > lightness[1] > lightness[2] and lightness[3] > lightness[4]
    assert to_hex(means[1].get_color()) == to_hex(COLORS["full"])
    assert to_hex(means[4].get_color()) == to_hex(COLORS["lora"])


def test_small_data_draws_the_end_and_how_far_validation_has_risen():
    rows = RESULTS["small_data"]
    end, risen = plot_small_data(rows, axes()), plot_overfitting(rows, axes())
    for label, r in (("full fine-tuning", None), ("LoRA, r = 1", 1), ("LoRA, r = 4", 4)):
        same = [row for row in rows if row["r"] == r]
        assert_draws(end, label, same, "characters", "test")
        sizes = sorted({row["characters"] for row in same})
        np.testing.assert_allclose(line(risen, label).get_ydata(), [900 / n for n in sizes])


@pytest.mark.parametrize(("label", "n"), [("full fine-tuning", 128), ("LoRA, r = 16", 16)])
def test_spectrum_is_divided_by_the_largest_and_ends_with_the_rank(label, n):
    ax = plot_spectrum(pick("spectrum", task="code"), axes())
    drawn = line(ax, label)
    np.testing.assert_array_equal(drawn.get_xdata(), range(1, n + 1))
    np.testing.assert_allclose(drawn.get_ydata(), 0.9 ** np.arange(n))


def test_spectrums_band_is_the_range_over_seeds():
    one, two = (pick("spectrum", task="code", r=4, seed=seed) for seed in SEEDS)
    two = [row | {"singular_values": [1.0, 0.5, 0.25, 0.125]} for row in two]
    (band,) = plot_spectrum([*one, *two], axes()).collections
    corners = band.get_paths()[0].vertices
    at_two = sorted({round(float(y), 9) for x, y in corners if x == 2})
    assert at_two == [0.5, 0.9]


def test_matrix_of_lower_rank_counts_as_zero_beyond_it():
    long, short = pick("spectrum", task="code", r=4, seed=0)
    short = short | {"singular_values": short["singular_values"][:1]}
    drawn = line(plot_spectrum([long, short], axes()), "LoRA, r = 4")
    np.testing.assert_allclose(drawn.get_ydata(), [1, 0.9 / 2, 0.81 / 2, 0.729 / 2])


def test_table_of_the_spectrum_holds_means_over_matrices():
    ax = plot_spectrum_table(pick("spectrum", task="code"), axes())
    table = {
        (x, y): text.get_text() for text in ax.texts for x, y in [text.get_position()] if x >= 0
    }
    effective = [table[0, y] for y in range(5)]
    assert effective == ["66.0", "2.5", "4.0", "10.0", "34.0"]  # of rank / 2 + 1 and rank / 2 + 3
    assert [table[x, 0] for x in range(5)] == ["66.0", "2.0", "3.0", "0.25", "1.0"]


@pytest.mark.parametrize("task", ["code", "reverse"])
def test_truncation_stands_beside_lora_trained_at_that_rank(task):
    cut, swept = pick("truncation", task=task), pick("rank_sweep", task=task)
    ax = plot_truncation(cut, swept, axes())
    lora = [row for row in swept if row["method"] == "lora"]
    assert_draws(ax, "LoRA trained at r = k", lora, "r", "test")
    (label,) = [d.get_label() for d in ax.lines if "stay tuned" in d.get_label()]
    assert_draws(ax, label, cut, "k", "test")


def test_similarity_of_the_first_and_of_eight_directions_is_drawn_beside_chance():
    rows = pick("subspace_similarity", task="code", r=8)
    ax = plot_subspace_similarity(rows, axes())
    assert len(ax.lines) == 4
    for i in (1, 8):
        same = [row for row in rows if row["i"] == i]
        assert_draws(ax, f"i = {i}", same, "j", "phi")
        start = line(ax, f"i = {i} before training (chance)")
        np.testing.assert_allclose(start.get_ydata(), [max(i, j) / 128 for j in start.get_xdata()])
        assert start.get_marker() == line(ax, f"i = {i}").get_marker()


def test_similarities_differ_in_grey():
    ax = plot_subspace_similarity(pick("subspace_similarity", task="code", r=8), axes())
    one, eight = (np.dot(to_rgb(line(ax, f"i = {i}").get_color()), GREY) for i in (1, 8))
    assert one - eight > 0.3


def test_counts_are_those_of_rank_8():
    ax = plot_parameter_counts(RESULTS["parameter_counts"], axes())
    full, lora = line(ax, "full fine-tuning"), line(ax, "LoRA on q and v, r = 8")
    names = [t.get_text() for t in ax.get_yticklabels()]
    i = names.index("llama-2-7b")
    assert lora.get_xdata()[i] == 4_194_304 and full.get_xdata()[i] == 6_738_415_616
    assert ax.texts[i].get_text() == "0.062 %"
    assert list(full.get_xdata()) == sorted(full.get_xdata())


def few_panel(task):
    return figure_of("how_few_numbers").axes[0 if task == "code" else 1]


@pytest.mark.parametrize("task", ["code", "reverse"])
def test_few_numbers_are_drawn_by_method_each_at_its_best_rate(task):
    ax = few_panel(task)
    rows = [row for row in pick("how_few_numbers", task=task) if row["lr"] == best_rate(row)]
    for r, x in (((1, 12),) if task == "code" else ()) + ((4, 192), (16, 3_072)):
        drawn = dict(zip(*line(ax, "LoRA-XS").get_data(), strict=True))
        same = [row["test"] for row in rows if (row["method"], row["r"]) == ("lora-xs", r)]
        assert len(same) == len(SEEDS) and drawn[x] == pytest.approx(np.mean(same))
    swept = pick("rank_sweep", task=task, method="full")
    assert line(ax, LABELS["full"]).get_ydata() == [np.mean([row["test"] for row in swept])]
    ones = list(line(ax, "LoRA of one matrix").get_xdata())
    assert ones == ([640, 2_560] if task == "code" else [])


def best_rate(row):
    return how_few_numbers.RATES[row["method"], row["r"], row["place"]][row["task"]][0]


def test_pefts_points_have_the_looks_of_ours():
    ours, pefts = few_panel("code"), figure_of("how_few_numbers").axes[2]
    for label, right in (("full fine-tuning", 0.472), ("VeRA, r = 64", 0.354)):
        assert line(pefts, label).get_marker() == line(ours, label).get_marker()
        assert to_hex(line(pefts, label).get_color()) == to_hex(line(ours, label).get_color())
        assert list(line(pefts, label).get_ydata()) == [right]


def test_combined_adapters_are_a_table_of_tasks_by_what_is_added():
    words = figure_of("leave_one_out").axes[0]
    shown = {text.get_position(): text.get_text() for text in words.texts}
    columns = ["nothing", "its own adapter", "with one other", "all but reverse", "all but swap"]
    columns += ["all but next", "all but ends", "all", "mean of ΔW", "means of A and B"]
    words.figure.draw_without_rendering()
    assert [t.get_text().replace("\n", " ") for t in words.get_xticklabels()] == columns
    line_of_swap = [shown[column, 1] for column in range(len(columns))]
    assert line_of_swap == "0% 90% 45% 30% 6% 30% 30% 22% 22% 22%".split()
    assert [shown[column, 4] for column in (0, 1, 2, 7)] == ["0%", "2%", "4%", "8%"]  # old tasks


def test_darker_cells_are_better_in_per_cent_and_in_nats():
    rows = pick("leave_one_out", model="words-tiny")
    losses = [row | {"metric": "nats"} for row in rows]
    share, loss = (plot_leave_one_out(r, axes()).images[0].get_array() for r in (rows, losses))
    assert share[0, 1] == 1 == loss[0, 0] and share[0, 0] == 0 == loss[0, 1]


def test_rewarded_trainings_are_drawn_along_the_steps():
    new, old = figure_of("rl_rank_one").axes
    full = [row for row in pick("rl_rank_one", method="full") if row["lr"] == 3e-4]
    assert line(new, LABELS["full"]).get_xdata().tolist() == [p[0] for p in full[0]["curve"]]
    for ax, column in ((new, 1), (old, 2)):
        ends = [row["curve"][-1][column] for row in full]
        assert line(ax, LABELS["full"]).get_ydata()[-1] == pytest.approx(np.mean(ends))


def test_figures_come_for_the_studies_that_are_there():
    assert [name for name, _ in study_figures(RESULTS)] == [
        name.replace("_", "-") for name in STUDIES
    ]
    one = {"truncation": RESULTS["truncation"]}
    assert list(study_figures(one)) == []
    both = one | {"rank_sweep": RESULTS["rank_sweep"]}
    assert [name for name, _ in study_figures(both)] == ["rank-sweep", "truncation"]
    assert [name for name, _ in study_figures(both, only=one)] == ["truncation"]


def test_text_and_ranks_of_a_user_can_be_drawn(tmp_path):
    rows = [row | {"task": "$a_^$.txt"} for row in pick("rank_sweep", task="code", seed=0)]
    figure = rank_sweep_figure(rows)
    save_figure(figure, tmp_path / "a.png")
    assert figure.axes[0].get_title(loc="left") == "$a_^$.txt"
    assert figure.axes[0].get_ylabel() == "test loss (nats per character)"
    adapter = [row | {"r": None} for row in pick("spectrum", task="code", r=4, seed=0)]
    figure = spectrum_figure(adapter)
    save_figure(figure, tmp_path / "b.png")
    assert [d.get_label() for d in figure.axes[0].lines] == ["LoRA"]


def test_rates_by_rank_are_drawn_and_the_best_of_each_is_ringed():
    rows = rates_by_rank(RESULTS["without_regret"], RESULTS["learning_rate_sweep"])
    rows = [row for row in rows if row["seed"] == 0]
    ax = plot_rates(rows, axes())
    rings = [drawn for drawn in ax.lines if drawn.get_markersize() == 13]
    assert [float(ring.get_xdata()[0]) for ring in rings] == [0.003] * 5
    for label, r in ((LABELS["full"], None), ("LoRA, r = 1", 1), ("LoRA, r = 64", 64)):
        same = {row["lr"]: row["val"] for row in rows if row["r"] == r}
        drawn = line(ax, label)
        assert dict(zip(drawn.get_xdata(), drawn.get_ydata(), strict=True)) == same


def test_a_rank_looks_the_same_in_every_panel_of_without_regret():
    rows = RESULTS["without_regret"]
    longer = plot_longer([row for row in rows if row["part"] == "longer"], axes())
    rates = figure_of("without_regret").axes[0]
    for drawn in longer.lines:
        same = line(rates, drawn.get_label())
        assert (drawn.get_color(), drawn.get_marker()) == (same.get_color(), same.get_marker())
        assert drawn.get_linestyle() == same.get_linestyle()


def test_batches_are_drawn_at_their_best_rate_with_the_range_of_the_seeds():
    rows = select(shipped_rows("without_regret"), part="batches")
    ax = plot_batches(rows, axes())
    for label, method in ((LABELS["full"], "full"), ("LoRA, r = 4", "lora")):
        best = [how for how in BEST if how["part"] == "batches" and how["method"] == method]
        shown = [row for how in best for row in select(rows, **how)]
        assert len(shown) == 3 * 3
        assert_draws(ax, label, shown, "batch", "test")


def test_lambda_1_is_marked_on_each_line_of_the_trade():
    ax = plot_trade(RESULTS["intruders_by_lambda"], axes())
    lines = [drawn for drawn in ax.lines if len(drawn.get_xdata()) == len(LAMBDAS)]
    marks = [drawn for drawn in ax.lines if len(drawn.get_xdata()) == 1]
    assert len(lines) == len(marks) == 3
    for drawn, mark in zip(lines, marks, strict=True):
        at = LAMBDAS.index(1.0)
        assert mark.get_xdata()[0] == drawn.get_xdata()[at] == pytest.approx(2.005)
        assert mark.get_ydata()[0] == drawn.get_ydata()[at]


def test_ranks_over_training_stand_beside_those_of_a_random_matrix():
    rows = RESULTS["delta_over_training"]
    ax = plot_along(rows, axes(), "effective_rank", "effective rank")
    (level,) = [drawn for drawn in ax.lines if drawn.get_linestyle() == ":"]
    assert level.get_ydata() == pytest.approx([103, 103], abs=1)
    assert "random matrix: 103" in [t.get_text() for t in ax.texts]
    same = [row for row in rows if row["optimizer"] == "SGD"]
    assert_draws(ax, "full fine-tuning, SGD", same, "step", "effective_rank")


def test_every_start_is_drawn_at_the_rate_that_was_best_with_the_first_seed():
    rows = at_best_rate(RESULTS["svd_starts"])
    found = {row["start"]: row["lr"] for row in rows if row["seed"] == 0}
    assert found.pop("MiCA") == 0.01  # the lowest that was tried
    assert found == dict.fromkeys(("LoRA", "OLoRA", "PiSSA", "EVA", "LoRA-GA"), 0.003)
