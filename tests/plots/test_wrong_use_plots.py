"""What cannot be drawn is refused in one sentence that names what was given."""

import pytest
from matplotlib.figure import Figure

from minilora import plots
from minilora.plots.axes import by_method, figure_with_panels
from minilora.system.errors import UsageError

DORA = {"runs": [{"method": "full"}, {"method": "dora"}]}
NAN = float("nan")


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"d_in": 0}, "d_in must be a whole number of at least 1, got 0"),
        ({"d_out": -3}, "d_out must be .* got -3"),
        ({"r": 0}, "r must be .* got 0"),
        ({"r": 2.5}, "r must be .* got 2.5"),
        ({"r": True}, "r must be .* got True"),
        ({"r": None}, "r must be .* got None"),
        ({"d_in": NAN}, "d_in must be .* got nan"),
        ({"d_in": "128"}, "d_in must be .* got '128'"),
    ],
)
def test_a_size_that_no_matrix_has_is_refused(sizes, named):
    with pytest.raises(UsageError, match=named):
        plots.draw_lora(Figure().subplots(), **sizes)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plots.rank_color(0), "r must be a whole number of at least 1, got 0"),
        (lambda: plots.rank_color(None), "r must be .* got None"),
        (lambda: plots.shade("#000000", 1.5), "tone must be a number from -1 to 1, got 1.5"),
        (lambda: plots.shade("#000000", NAN), "tone must be .* got nan"),
        (lambda: figure_with_panels("title", [], 1, 1), "no rows to draw"),
        (lambda: plots.counts_figure([], "LoRA"), "no matrices to draw"),
        (lambda: plots.compare_figure({"runs": []}), "no runs to draw"),
        (
            lambda: plots.plot_learning_curves(DORA, Figure().subplots()),
            "not of dora",
        ),
        (lambda: plots.plot_costs(DORA, Figure().subplots()), "there are not runs of both"),
        (lambda: list(by_method(DORA["runs"])), "are drawn here, not dora"),
        (lambda: plots.save_figure(Figure(), "a.jpg"), "name it a.png"),
        (lambda: plots.save_figure(Figure(), "figure"), "name it figure.png"),
    ],
)
def test_a_wrong_argument_is_named(call, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        call()
    assert not list(tmp_path.iterdir())
