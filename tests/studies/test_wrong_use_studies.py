"""What no study can answer is refused in one sentence that names what was given."""

import json

import pytest
from matplotlib.figure import Figure

from minilora.studies import STUDIES, shipped_rows, study_figures
from minilora.studies.forgetting_frontier import frontier_run
from minilora.studies.known_rank_teacher import teacher_run
from minilora.studies.methods import methods_run
from minilora.studies.small_data import small_data_run
from minilora.studies.spectrum import spectrum_run
from minilora.studies.subspace_similarity import plot_subspace_similarity
from minilora.studies.truncation import truncation_run
from minilora.system.errors import UsageError


@pytest.mark.parametrize("name", ["ranks", "rank-sweep", "", None, "../compare"])
def test_an_unknown_study_is_named_beside_those_there_are(name):
    for call in (
        lambda: shipped_rows(name),
        lambda: list(study_figures({name: []})),
        lambda: list(study_figures({}, only=[name])),
    ):
        with pytest.raises(UsageError, match="there is no study .*; the studies are known_rank_te"):
            call()


@pytest.mark.parametrize("name", STUDIES)
def test_no_rows_are_not_drawn_as_an_empty_figure(name):
    study = STUDIES[name]
    with pytest.raises(UsageError, match="no rows to draw"):
        study.figure(*[[]] * (1 + len(study.beside)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": 65}, "k must be a number from 1 to 64, got 65"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"r": True}, "r must be a whole number"),
        ({"r": 65}, "r must be a number from 1 to 64"),
        ({"spectrum": "round"}, "spectrum must be .*, got 'round'"),
    ],
)
def test_the_teacher_has_no_such_rank_or_spectrum(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        teacher_run(**{"k": 4, "spectrum": "flat", "r": 4, "seed": 0} | change)


@pytest.mark.parametrize(
    "run", [small_data_run, frontier_run, truncation_run, methods_run, spectrum_run]
)
def test_a_run_that_diverged_has_no_quality_and_says_so(run):
    settings = {"task": "code", "method": "full", "seed": 0, "steps": 2, "lr": 1e30}
    more = {"characters": 3000} if run is small_data_run else {}
    (row,) = run(**settings, **more)
    assert row["diverged"] is True
    assert row.get("test") is None and row.get("old") is None
    json.dumps(row, allow_nan=False)


def test_one_direction_alone_is_drawn_once():
    row = {"task": "code", "seed": 0, "r": 1, "r_other": 1, "i": 1, "j": 1, "phi": 0.5}
    ax = plot_subspace_similarity([row | {"phi_start": 0.1}], Figure().subplots())
    assert [line.get_label() for line in ax.lines] == ["i = 1", "i = 1 before training (chance)"]


def test_only_full_fine_tuning_is_cut():
    with pytest.raises(UsageError, match='method="full"'):
        truncation_run(task="code", method="lora", seed=0)
