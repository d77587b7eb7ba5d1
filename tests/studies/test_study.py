"""Claims about the studies: their settings, what a run does with them, and what its rows say.

Trainings here have two or three steps, and qualities are measured on few examples: the subject is
the bookkeeping. Only the known-rank teacher, which takes a moment, is run as it is.
"""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import minilora as ml
from minilora import studies
from minilora.experiments import tuning
from minilora.experiments.rows import in_six_digits
from minilora.experiments.sweeps import sweep
from minilora.experiments.tasks import load_task
from minilora.experiments.tuning import set_up, tune
from minilora.methods.registry import METHODS
from minilora.methods.trainable import count_parameters
from minilora.studies import (
    STUDIES,
    delta_over_training,
    forgetting_frontier,
    intruders_by_lambda,
    leave_one_out,
    rl_rank_one,
    subspace_similarity,
    svd_starts,
    which_weights,
    without_regret,
)
from minilora.studies.delta_over_training import delta_run
from minilora.studies.forgetting_frontier import frontier_run
from minilora.studies.intruders_by_lambda import lambda_run
from minilora.studies.known_rank_teacher import teacher_run
from minilora.studies.learning_rate_sweep import RATES
from minilora.studies.methods import THIRTEEN, methods_run
from minilora.studies.small_data import small_data_run
from minilora.studies.spectrum import spectrum_run
from minilora.studies.subspace_similarity import subspace_run
from minilora.studies.svd_starts import start_run
from minilora.studies.truncation import truncation_run
from minilora.studies.without_regret import regret_run

RATES_SOUGHT_WITH_ONE_SEED = (
    "learning_rate_sweep",
    "without_regret",
    "svd_starts",
    "how_few_numbers",
    "rl_rank_one",
)
PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 40


@pytest.fixture
def quick(monkeypatch):
    """Tasks that are measured on few examples."""
    modules = (tuning, forgetting_frontier, leave_one_out, rl_rank_one, svd_starts, without_regret)
    for module in modules:
        monkeypatch.setattr(module, "load_task", lambda t: replace(load_task(t), examples=4))
    monkeypatch.setattr(leave_one_out, "EXAMPLES", dict.fromkeys(leave_one_out.EXAMPLES, 4))


@pytest.mark.parametrize("spectrum", ["flat", "geometric"])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_below_the_teachers_rank_lora_comes_to_the_best_there_is(spectrum, r):
    (row,) = teacher_run(4, spectrum, r, seed=0)
    by_ten = 10 ** (1 / 3)  # from 2 to 0.2 in three equal steps
    sigma = {"flat": np.ones(4), "geometric": 2 / by_ten ** np.arange(4)}
    assert row["bound"] == pytest.approx((sigma[spectrum][r:] ** 2).sum() / 64)
    assert row["loss"] == pytest.approx(row["bound"], rel=0.06)


@pytest.mark.parametrize("spectrum", ["flat", "geometric"])
@pytest.mark.parametrize("r", [4, 8])
def test_from_the_teachers_rank_on_lora_learns_it_all(spectrum, r):
    (row,) = teacher_run(4, spectrum, r, seed=1)
    assert row["loss"] < 1e-6 and row["bound"] == 0
    assert {key: row[key] for key in ("k", "spectrum", "r", "seed")} == dict(
        k=4, spectrum=spectrum, r=r, seed=1
    )


def test_the_teacher_computes_with_one_blas_thread(monkeypatch):
    threads, qr = [], np.linalg.qr

    def watched(matrix):
        threads.extend(i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas")
        return qr(matrix)

    monkeypatch.setattr(np.linalg, "qr", watched)
    teacher_run(4, "flat", 1, seed=0)
    assert set(threads) == {1}


def test_every_file_of_the_room_is_a_study_with_a_figure_of_its_name():
    files = {path.stem for path in Path(studies.__file__).parent.glob("*.py")}
    assert files - {"__init__", "study"} == set(STUDIES)
    for name, study in STUDIES.items():
        assert study.figure.__name__ == f"{name}_figure"
        module = import_module(f"minilora.studies.{name}")
        assert module.__doc__.startswith(study.question + "\n")


def test_studies_and_plots_load_matplotlib_only_to_draw():
    code = "import sys, minilora.plots, minilora.studies; sys.exit('matplotlib' in sys.modules)"
    root = Path(ml.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize("name", STUDIES)
def test_settings_are_json_different_and_have_every_seed(name):
    settings = STUDIES[name].settings(range(3))
    texts = [json.dumps(s, sort_keys=True, allow_nan=False) for s in settings]
    assert len(set(texts)) == len(texts) > 0
    if name != "parameter_counts":  # which has no chance in it
        of_seed = [
            {json.dumps(s | {"seed": None}, sort_keys=True) for s in settings if s["seed"] == seed}
            for seed in range(3)
        ]
        assert of_seed[0] >= of_seed[1] == of_seed[2] and sum(map(len, of_seed)) == len(settings)
        assert of_seed[1] and (of_seed[0] == of_seed[1] or name in RATES_SOUGHT_WITH_ONE_SEED)
    assert STUDIES[name].question.endswith("?")


@pytest.mark.parametrize("name", STUDIES)
def test_settings_fit_their_run_function(name):
    for settings in STUDIES[name].settings(range(2)):
        inspect.signature(STUDIES[name].run).bind(**settings)


def test_the_rate_study_has_every_method_at_four_rates_or_more():
    assert set(RATES) == set(THIRTEEN)
    assert all(len(rates) >= 4 and list(rates) == sorted(set(rates)) for rates in RATES.values())


@pytest.mark.parametrize("task", which_weights.BUDGETS)
def test_which_weights_compares_places_of_about_the_same_budget(task):
    trained = {}
    for place, targets in which_weights.PLACES.items():
        model = ml.load_model(load_task(task).base)
        config = ml.LoraConfig(r=which_weights.BUDGETS[task][place], target_modules=targets)
        trained[place] = count_parameters(prepared(model, config))[0]
    assert set(trained) == set(which_weights.BUDGETS[task]) and len(trained) == 6
    mean = {"code": 18_000, "sort": 9_700}[task]
    assert all(value == pytest.approx(mean, rel=0.06) for value in trained.values()), trained


def prepared(model, config, seed=0):
    METHODS["lora"].prepare(model, config, np.random.default_rng(seed))
    return model


@pytest.mark.parametrize("name", [n for n in STUDIES if n != "known_rank_teacher"])
def test_first_setting_of_every_study_gives_rows_of_json(name, quick, monkeypatch):
    found, settings = STUDIES[name], STUDIES[name].settings(range(1))[0]
    for module in {tuning.__name__, found.run.__module__}:
        for name_of, call in (("tune", tune), ("set_up", set_up)):
            quick = lambda *args, call=call, **kw: call(*args, **kw | {"steps": 2})  # noqa: E731
            monkeypatch.setattr(sys.modules[module], name_of, quick, raising=False)
    few = {"steps": 2} if "steps" in settings else {}
    rows = found.run(**settings | few)
    assert rows and json.loads(json.dumps(rows, allow_nan=False))
    assert all(row.keys() == rows[0].keys() for row in rows)
    kept = {key: value for key, value in settings.items() if key in rows[0] and key != "steps"}
    assert all(row | kept == row for row in rows)
    assert kept or name == "parameter_counts"


def test_methods_stand_beside_what_the_base_model_does(quick):
    settings = dict(task="code", method="bitfit", seed=0, steps=1)
    t, (row,) = tune(**settings), methods_run(**settings)
    assert (row["base_test"], row["base_old"]) == (t.task.test(t.base), t.task.old(t.base))


def test_the_shipped_methods_stand_beside_the_base_that_compare_measured():
    entries = json.loads((studies.SHIPPED / "compare.json").read_text("utf-8"))["tasks"]
    bases = {entry["task"]: in_six_digits(entry["base"]) for entry in entries}
    measured = {(task, base["test"], base["old"]) for task, base in bases.items()}
    rows = studies.shipped_rows("methods")
    assert {(row["task"], row["base_test"], row["base_old"]) for row in rows} <= measured


def test_curves_have_a_point_at_each_evaluation(quick):
    (row,) = small_data_run(task="code", method="lora", seed=0, steps=51, characters=3000)
    assert [step for step, _ in row["curve"]] == [0, 50, 51]
    assert row["characters"] == 3000 and row["trainable"] == 18_432
    (row,) = frontier_run(task="code", method="lora", seed=0, steps=3)
    t = tune("code", "lora", 0, steps=3)
    with threadpool_limits(1):  # as in training; with more threads the last bits may differ
        assert row["curve"] == [
            [0, t.task.val(t.base), t.task.old(t.base)],
            [3, t.task.val(t.model), t.task.old(t.model)],
        ]


@pytest.mark.parametrize("r", [1, 3, 4])
def test_spectrum_has_a_row_for_every_matrix(r, quick):
    rows = spectrum_run(task="reverse", method="lora", seed=0, steps=2, r=r)
    places = [f"attn.{x}_proj" for x in "qkvo"] + ["mlp.up_proj", "mlp.down_proj"]
    assert [row["path"] for row in rows] == [f"layers.{i}.{at}" for i in range(4) for at in places]
    for row in rows:
        sigma = np.array(row["singular_values"])
        assert len(sigma) == r and (sigma > 1e-6 * sigma[0]).all()  # zeros, rounded, are left out
        assert row["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-3)
        assert 1 <= row["effective_rank"] <= r + 0.001 and 1 <= row["k90"] <= r
        assert row["amplification"] > 0 and 0 <= row["intruders"] <= 10


def test_truncation_goes_from_the_bases_matrices_to_the_tuned_models(quick):
    settings = dict(task="code", method="full", seed=0, steps=3)
    t, rows = tune(**settings), truncation_run(**settings)
    assert [row["k"] for row in rows] == [0, 1, 2, 4, 8, 16, 32, 64, 128]  # C = 128 is full rank
    whole, none = t.task.test(t.model), without_its_deltas(t)
    assert rows[-1]["test"] == pytest.approx(whole, rel=1e-6)
    assert rows[0]["test"] == pytest.approx(none, rel=1e-6)
    assert abs(whole - none) > 0.01


def test_truncation_stops_at_the_smallest_matrix(quick):
    rows = truncation_run(task="reverse", method="full", seed=0, steps=1)
    assert [row["k"] for row in rows] == [0, 1, 2, 4, 8, 16, 32, 64]


def without_its_deltas(t):
    """Quality of the tuned model whose Linears are the base's."""
    base = t.base.state_dict()
    for name, p in t.model.named_parameters():
        if "_proj.weight" in name:
            p.data[...] = base[name]
    return t.task.test(t.model)


def test_subspaces_are_compared_with_their_own_starts(quick, monkeypatch):
    monkeypatch.setattr(subspace_similarity, "tune", lambda *args, **kw: tune(*args, **kw, steps=2))
    rows = subspace_run("reverse", seed=0, r=3, r_other=64)
    assert {(row["i"], row["j"]) for row in rows} == {
        (i, j) for i in (1, 2, 3) for j in (1, 2, 4, 8, 16, 32, 64)
    }
    for row in rows:
        assert 0 <= row["phi"] <= 1 + 1e-6 and row["d"] == 64
        if row["j"] == 64:  # every direction there is
            assert row["phi"] == pytest.approx(1) == row["phi_start"]
        if row["i"] <= row["j"] < 64:
            assert 0 < row["phi_start"] < 0.9


def test_a_study_swept_is_its_rows_in_order(tmp_path):
    found = STUDIES["parameter_counts"]
    rows = sweep(found.run, found.settings(range(1)), tmp_path, jobs=1)
    assert rows == [row for s in found.settings(range(1)) for row in found.run(**s)]


def test_other_methods_rates_are_sought_with_one_seed():
    settings = STUDIES["learning_rate_sweep"].settings(range(3))
    others = [s for s in settings if s["method"] not in ("full", "lora")]
    assert {s["seed"] for s in others} == {0}
    assert {s["method"] for s in settings} == set(THIRTEEN)


def test_batches_of_several_sizes_see_as_many_examples():
    assert {size * steps for size, steps in without_regret.BATCHES.items()} == {3_840}
    assert {"batch": 4, "steps": 960}.items() <= next(
        s for s in STUDIES["without_regret"].settings(range(1)) if s.get("batch") == 4
    ).items()


def test_a_longer_training_is_looked_at_along_the_way_and_others_at_the_end(quick):
    how = dict(task="code", method="lora", seed=0, lr=0.01, r=1, steps=21)
    longer, rates = (regret_run(part=part, **how)[0] for part in ("longer", "rates"))
    assert [step for step, _ in longer["curve"]] == [10, 20, 21]
    assert rates["curve"] == longer["curve"][-1:] and rates["val"] == rates["curve"][0][1]
    assert (longer["batch"], longer["place"], longer["trainable"]) == (12, "all", 4_608)


def test_a_batch_and_a_place_are_what_is_trained_with(quick):
    how = dict(task="code", method="lora", seed=0, lr=0.01, steps=1)
    (small,), (large,) = (regret_run(part="batches", batch=n, **how) for n in (4, 64))
    assert small["val"] != large["val"] and (small["batch"], large["batch"]) == (4, 64)
    (mlp,) = regret_run(part="places", place="MLP", r=7, **how)
    assert (mlp["place"], mlp["trainable"]) == ("MLP", 7 * 2 * 2 * (128 + 512))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_lambda_goes_from_the_base_to_the_tuned_model_and_beyond(method, quick, monkeypatch):
    monkeypatch.setattr(intruders_by_lambda, "LAMBDAS", (0.0, 1.0, 1.5))
    how = dict(task="code", method=method, seed=0, steps=3, lr=0.03)
    t, rows = tune(**how), lambda_run(**how)
    assert [row["factor"] for row in rows] == [0.0, 1.0, 1.5] * 2
    scaled = {(row["scaled"], row["factor"]): row for row in rows}
    base, whole = scaled["change", 0.0], scaled["change", 1.0]
    assert base["old"] == pytest.approx(t.task.old(t.base), rel=1e-6) and base["intruders"] == 0
    assert whole["test"] == pytest.approx(t.task.test(t.model), rel=1e-5)
    assert scaled["intruders", 1.0]["test"] == pytest.approx(whole["test"], rel=1e-6)
    assert scaled["intruders", 1.0]["intruders"] == whole["intruders"]
    assert scaled["change", 1.5]["test"] != whole["test"] != base["test"]


def test_delta_is_compared_with_itself_at_the_end(quick):
    rows = delta_run("SGD", task="code", method="full", seed=0, lr=0.1, steps=3)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["cosine"] == pytest.approx(1) and 0.5 < rows[0]["cosine"] < 1
    norms = [row["relative_norm"] for row in rows]
    assert norms == sorted(norms) and norms[0] > 0
    adamw = delta_run("AdamW", task="code", method="full", seed=0, steps=3)
    assert adamw[0]["relative_norm"] != rows[0]["relative_norm"]
    for row in rows + adamw:
        sigma = row["singular_values"]
        assert len(sigma) == 16 and sigma == sorted(sigma, reverse=True)


def test_a_random_matrix_has_the_ranks_that_figures_and_lessons_name_as_chance():
    chance = {name: round(value) for name, value in delta_over_training.chance().items()}
    assert chance == {"effective_rank": 103, "stable_rank": 33, "k90": 66}


def test_every_start_trains_from_another_place(quick):
    how = dict(task="code", seed=0, lr=0.01, steps=2)
    rows = [start_run(start=start, **how)[0] for start in svd_starts.RATES]
    assert len({row["val"] for row in rows}) == len(rows) == 6
    trained = {row["start"]: row["trainable"] for row in rows}
    assert trained.pop("MiCA") == 9_216 and set(trained.values()) == {18_432}
    assert {row["start"]: row["method"] for row in rows if row["method"] != "lora"} == {
        "OLoRA": "olora", "PiSSA": "pissa"
    }  # fmt: skip
