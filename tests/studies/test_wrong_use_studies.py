"""What no study can answer is refused in one sentence that names what was given."""

import pytest

from minilora.studies import STUDIES, shipped_rows, study_figures
from minilora.studies.known_rank_teacher import teacher_run
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


def test_only_full_fine_tuning_is_cut():
    with pytest.raises(UsageError, match='method="full"'):
        truncation_run(task="code", method="lora", seed=0)
