"""Claims about the figure: it draws the numbers it is given, in the project's colours, legibly.

The entry is made by hand. What is drawn is read back from matplotlib's objects, and where the texts
lie is asked of the renderer.
"""

import base64
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import minilora
from minilora.experiments.comparison import DEFAULT_METHODS
from minilora.methods.registry import LABELS
from minilora.plots.comparisons import compare_figure, plot_costs, plot_learning_curves
from minilora.plots.house_style import COLORS, FAMILY_COLORS, save_figure, show, style

COSTS = "trainable optimizer_bytes disk_bytes peak_memory_bytes seconds_per_step".split()
CURVES = {
    ("full", 0): [(0, 3.0), (150, 2.0), (300, 1.6)],
    ("full", 1): [(0, 3.0), (150, 2.2), (300, 1.5)],
    ("lora", 0): [(0, 3.0), (150, 2.4), (300, 1.7)],
    ("lora", 1): [(0, 3.0), (150, 2.5), (300, 1.9)],
    ("scratch", 0): [(0, 4.5), (150, 3.5), (300, 2.7)],
    ("scratch", 1): [(0, 4.7), (150, 3.1), (300, 2.6)],
}
FULL = [400_000, 3_200_000, 1_600_000, 30_000_000, 0.05]
LORA = [(20_000, 160_000, 96_000, 21_000_000, 0.04), (20_000, 160_000, 96_000, 21_000_000, 0.06)]
SHARES = [5.0, 5.0, 6.0, 70.0, 100.0]  # of the means over both seeds


def entry(seeds=(0, 1), **changes):
    runs = []
    for (method, seed), curve in CURVES.items():
        costs = dict(zip(COSTS, LORA[seed] if method == "lora" else FULL, strict=True))
        runs.append({"method": method, "seed": seed, "curve": curve, **costs})
    return {
        "task": "code",
        "about": "English documentation → Python code",
        "metric": "nats",
        "runs": [run for run in runs if run["seed"] in seeds],
    } | changes


def string_entry():
    curves = {method: [(0, 0.0), (300, v)] for method, v in (("full", 1.0), ("lora", 0.9))}
    runs = [run | {"curve": curves[run["method"]]} for run in entry((0,))["runs"][:2]]
    return entry(about="seven string tasks → reverse a word", metric="exact", runs=runs)


def axes():
    return Figure().subplots()


def png(figure, path):
    save_figure(figure, path)
    return path.read_bytes()


def texts_of(ax):
    legend = ax.get_legend().get_texts() if ax.get_legend() else []
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    low, high = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    ticks = [  # matplotlib also keeps labels of ticks beyond the ends, which it does not draw
        t
        for t in ticks
        if low[0] <= t.get_position()[0] <= low[1] and high[0] <= t.get_position()[1] <= high[1]
    ]
    title = [t for t in ax.findobj(Text) if t.get_text() == ax.get_title(loc="left")]
    title += [ax.xaxis.label, ax.yaxis.label]
    return [t for t in [*title, *ticks, *legend, *ax.texts] if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("seeds", [(0,), (1,), (0, 1)])
def test_each_line_is_the_mean_of_its_evaluations_over_seeds(seeds):
    ax = plot_learning_curves(entry(seeds), axes())
    assert [line.get_label() for line in ax.lines] == list(LABELS[m] for m in DEFAULT_METHODS)
    for line, method in zip(ax.lines, DEFAULT_METHODS, strict=True):
        values = [[value for _, value in CURVES[method, seed]] for seed in seeds]
        np.testing.assert_array_equal(line.get_xdata(), [0, 150, 300])
        np.testing.assert_allclose(line.get_ydata(), np.mean(values, axis=0), rtol=1e-12)


def test_each_band_goes_from_the_lowest_seed_to_the_highest():
    ax = plot_learning_curves(entry(), axes())
    assert len(ax.collections) == 3
    for band, method in zip(ax.collections, DEFAULT_METHODS, strict=True):
        corners = band.get_paths()[0].vertices
        for step in (0, 150, 300):
            there = {y for x, y in corners if x == step}
            expected = {dict(CURVES[method, seed])[step] for seed in (0, 1)}
            assert there == expected, (method, step)


def test_method_that_was_not_run_is_not_drawn():
    ax = plot_learning_curves(string_entry(), axes())
    assert [line.get_label() for line in ax.lines] == [LABELS["full"], LABELS["lora"]]


def test_bars_are_loras_share_of_full_in_per_cent():
    ax = plot_costs(entry(), axes())
    full, lora = ax.containers
    assert [bar.get_width() for bar in full] == [100.0] * 5
    assert [bar.get_width() for bar in lora] == pytest.approx(SHARES)
    assert [text.get_text() for text in ax.texts] == ["5.0 %", "5.0 %", "6.0 %", "70 %", "100 %"]
    for text, bar in zip(ax.texts, lora, strict=True):
        assert text.get_position()[1] == pytest.approx(bar.get_y() + bar.get_height() / 2)


def test_costs_are_named_from_top_to_bottom():
    ax = plot_costs(entry(), axes())
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "trainable parameters",
        "optimizer state",
        "file to keep",
        "peak memory of a step",
        "time per step",
    ]
    low, high = ax.get_ylim()
    assert low > high  # the first is on top


def test_full_and_lora_have_the_same_two_colours_in_both_panels():
    curves, costs = compare_figure(entry()).axes
    full, lora, scratch = (to_rgb(COLORS[method]) for method in ("full", "lora", "scratch"))
    assert len({full, lora, scratch}) == 3
    assert [to_rgb(line.get_color()) for line in curves.lines] == [full, lora, scratch]
    assert [tuple(b.get_facecolor()[0][:3]) for b in curves.collections] == [full, lora, scratch]
    for container, colour in zip(costs.containers, (full, lora), strict=True):
        assert {bar.get_facecolor()[:3] for bar in container} == {colour}


def test_curves_differ_in_grey_too():
    ax = plot_learning_curves(entry(), axes())
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(looks) == 3
    weights = (0.299, 0.587, 0.114)  # of red, green and blue in what the eye takes for lightness
    full, lora = (np.dot(to_rgb(COLORS[method]), weights) for method in ("full", "lora"))
    assert abs(full - lora) > 0.2


def test_axes_of_nats_say_their_units_and_seeds():
    ax = plot_learning_curves(entry(), axes())
    split = "on the validation split; tables are of the test split"
    assert ax.get_xlabel() == f"training step (mean of 2 seeds, band: their range)\n{split}"
    assert ax.get_ylabel() == "validation loss (nats per character)"
    assert plot_learning_curves(entry((0,)), axes()).get_xlabel() == f"training step\n{split}"
    assert plot_costs(entry(), axes()).get_xlabel() == "per cent of full fine-tuning's"


def test_axes_of_exact_match_are_in_per_cent_and_show_0_to_100():
    figure = compare_figure(string_entry())
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_ylabel() == "validation: answers exactly right"
    low, high = ax.get_ylim()
    assert low <= 0 and high >= 1
    assert {"0%", "100%"} <= {label.get_text() for label in ax.get_yticklabels()}


def test_figure_names_the_task_and_explains_each_curve():
    ax = compare_figure(entry()).axes[0]
    assert "English documentation → Python code" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(
        LABELS[m] for m in DEFAULT_METHODS
    )


@pytest.mark.parametrize(
    "drawn",
    [
        entry(),
        string_entry(),
        entry((0,), about="English documentation → a file with quite a long name indeed.txt"),
        entry((0,), about="English documentation → " + "name_without_a_space" * 4),
    ],
    ids=["nats", "exact match", "long name", "long word"],
)
def test_no_text_covers_another_or_leaves_the_figure(drawn):
    figure = compare_figure(drawn)
    figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for ax in figure.axes for t in texts_of(ax)]
    assert len(boxes) > 20
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{first!r} covers {second!r}"
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("share", [0.001, 0.5, 1.0, 1.04, 2.5])
def test_label_of_a_bar_stays_inside_the_axes(share):
    drawn = entry((0,))
    for run in drawn["runs"]:
        if run["method"] == "lora":
            run.update({key: share * cost for key, cost in zip(COSTS, FULL, strict=True)})
    figure = compare_figure(drawn)
    figure.draw_without_rendering()
    ax = figure.axes[1]
    for text, bar in zip(ax.texts, ax.containers[1], strict=True):
        box = text.get_window_extent()
        assert ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
        assert box.x0 > bar.get_window_extent().x1  # beside its bar, not on it


@pytest.mark.parametrize("name", ["$a$_^.txt", "100$.txt", "a_b^c.txt", "$x_$"])
def test_name_of_a_text_is_not_a_formula(name, tmp_path):
    figure = compare_figure(entry((0,), about=name))
    save_figure(figure, tmp_path / "a.png")
    assert figure.axes[0].get_title(loc="left") == f"What is learned: {name}"


def test_saved_figure_is_a_png_and_the_same_bytes_each_time(tmp_path):
    first = png(compare_figure(entry()), tmp_path / "a.png")
    assert first[:8] == b"\x89PNG\r\n\x1a\n" and b"Software" not in first
    assert png(compare_figure(entry()), tmp_path / "b.png") == first
    assert png(compare_figure(entry((0,))), tmp_path / "c.png") != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_figure_for_slides_is_an_svg_and_the_same_bytes_each_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        save_figure(compare_figure(entry()), tmp_path / name)
    first = (tmp_path / "a.svg").read_text("utf-8")
    assert first == (tmp_path / "b.svg").read_text("utf-8")
    assert "<svg " in first and "<dc:date>" not in first and "<image" not in first


def test_figure_that_cannot_be_drawn_leaves_the_old_file(tmp_path, monkeypatch):
    path, figure = tmp_path / "a.png", compare_figure(entry())
    path.write_bytes(b"old")

    def fail(file, **options):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_global_setting_is_changed_and_no_window_is_opened(tmp_path):
    from matplotlib import pyplot

    with matplotlib.rc_context({"font.size": 7, "legend.frameon": True}):
        before = dict(matplotlib.rcParams)
        save_figure(compare_figure(entry()), tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_style_is_the_same_whatever_the_users_settings(tmp_path):
    plain = png(compare_figure(entry()), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": False}):
        assert png(compare_figure(entry()), tmp_path / "b.png") == plain


@pytest.mark.system
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "tkagg"])
def test_figures_are_drawn_whatever_backend_a_notebook_or_desktop_has_set(backend, tmp_path):
    assert drawn_under(backend, tmp_path).returncode == 0
    assert (tmp_path / "a.png").exists()


@pytest.mark.system
def test_a_backend_that_matplotlib_does_not_know_is_named(tmp_path):
    sentence = "UsageError: matplotlib knows no MPLBACKEND=garbage; unset it"
    assert drawn_under("garbage", tmp_path).stderr.splitlines()[-1].endswith(sentence)


def drawn_under(backend, folder):
    code = "from minilora.plots import *; save_figure(lora_picture(), 'a.png')"
    paths = {"PYTHONPATH": str(Path(minilora.__file__).parents[1])}
    environment = dict(os.environ) | paths | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_style_is_undone_after_an_error():
    with matplotlib.rc_context({"font.size": 7}):
        with pytest.raises(ZeroDivisionError), style():
            matplotlib.rcParams["font.size"] /= 0
        assert matplotlib.rcParams["font.size"] == 7


def test_panels_can_be_drawn_on_axes_of_ones_own():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_learning_curves(entry(), left) is left and plot_costs(entry(), right) is right
    figure.savefig(io.BytesIO(), format="png")


def many_methods():
    """Four methods that trained ever less, two seeds of one of them, and what they came to."""
    results = [
        ("full", 0, 400_000, 1.6, 1.9),
        ("dora", 0, 20_000, 1.7, 1.8),
        ("prefix", 0, 18_000, 2.4, 1.4),
        ("bitfit", 0, 3_000, 2.0, 1.5),
        ("bitfit", 1, 3_000, 2.2, 1.7),
    ]
    keys = ("method", "seed", "trainable", "test", "old")
    runs = [dict(zip(keys, values, strict=True)) for values in results]
    return entry(runs=runs, base={"test": 3.0, "old": 1.3})


def test_other_methods_are_drawn_by_what_they_learned_and_lost():
    drawn = many_methods()
    for ax, which in zip(compare_figure(drawn).axes, ("test", "old"), strict=True):
        points = [line for line in ax.lines if line.get_marker() not in ("None", "")]
        values = {"full": [], "dora": [], "prefix": [], "bitfit": []}
        for run in drawn["runs"]:
            values[run["method"]].append(run[which])
        assert [line.get_xdata()[0] for line in points] == [np.mean(v) for v in values.values()]
        families = ("full", "reparameterized", "additive", "selective")
        colors = [to_rgb(FAMILY_COLORS[family]) for family in families]
        assert [to_rgb(line.get_color()) for line in points] == colors
        assert len({line.get_marker() for line in points}) == 4  # told apart in grey too
        ranges = [line.get_xdata() for line in ax.lines if len(set(line.get_ydata())) == 1]
        assert [list(ends) for ends in ranges if len(ends) == 2] == [
            [min(v), max(v)] for v in values.values()
        ]
        (base,) = (line for line in ax.lines if line.get_linestyle() == ":")
        assert set(base.get_xdata()) == {drawn["base"][which]}


def test_other_methods_are_named_with_the_numbers_they_trained():
    ax = compare_figure(many_methods()).axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [
        "full fine-tuning: 400,000",
        "DoRA: 20,000",
        "prefix tuning: 18,000",
        "BitFit: 3,000",
    ]


@pytest.mark.parametrize("method", ["bitfit", "scratch"])
def test_one_method_alone_is_drawn(method, tmp_path):
    drawn = many_methods()
    drawn["runs"] = [drawn["runs"][0] | {"method": method}]
    assert png(compare_figure(drawn), tmp_path / "a.png")[:4] == b"\x89PNG"


def test_a_notebook_gets_a_figure_twice_as_sharp_with_its_text_and_in_few_bytes(monkeypatch):
    ipython = pytest.importorskip("IPython")
    from matplotlib import pyplot  # before there seems to be a notebook, to which it would attach

    shown = []
    monkeypatch.setattr(ipython, "get_ipython", lambda: True)
    monkeypatch.setattr(ipython.display, "display", shown.append)
    with style():
        figure = Figure(figsize=(4, 3))
        figure.subplots().plot([1, 2], color=COLORS["lora"])
        plain = io.BytesIO()
        figure.savefig(plain, format="png", dpi=200, bbox_inches="tight")
        show(figure, "a line that rises from left to right")
    bundle, metadata = shown[0]._repr_mimebundle_()
    data, about = base64.b64decode(bundle["image/png"]), metadata["image/png"]
    assert about["alt"] == "a line that rises from left to right"
    pixels = matplotlib.image.imread(io.BytesIO(data))
    assert pixels.shape[:2] == (2 * about["height"], 2 * about["width"])
    orange = np.abs(pixels[..., :3] - to_rgb(COLORS["lora"])).max(axis=2)
    assert np.sum(orange < 0.01) > 500, "the colours stay what they are"
    assert len(data) < 0.6 * len(plain.getvalue())
    assert not pyplot.get_fignums(), "it is closed"
