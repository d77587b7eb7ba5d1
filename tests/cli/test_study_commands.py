"""Claims about `study`, `figures`, `sweep`, `spectrum` and `lessons`: what these commands write and
print, that they go on where they stopped, and what they say to a mistake."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import minilora as ml
from minilora import cli
from minilora.cli import learning
from minilora.cli import studying as study_commands
from minilora.experiments.tasks import TASKS
from minilora.learn.notebooks.lessons import LESSONS
from minilora.studies import STUDIES, shipped_rows

TEXT = "The rain in Spain stays mainly in the plain, said the professor to the flower girl.\n"


@pytest.fixture(autouse=True)
def plain(here):
    (here / "plain.txt").write_text(TEXT * 60)


def run(*argv):
    return cli.main([str(part) for part in argv])


@pytest.fixture
def small(monkeypatch):
    """A study of four quick runs in place of known_rank_teacher, and the calls that were made."""
    made = []

    def quick(k, spectrum, r, seed):
        made.append((r, seed))
        about = {"k": k, "spectrum": spectrum, "r": r, "seed": seed}
        return [about | {"loss": 1.0 / r, "bound": 0.5 / r}]

    def settings(seeds):
        return [
            {"k": 2, "spectrum": "flat", "r": r, "seed": seed} for r in (1, 2) for seed in seeds
        ]

    original = STUDIES["known_rank_teacher"]
    monkeypatch.setitem(
        STUDIES, "known_rank_teacher", replace(original, run=quick, settings=settings)
    )
    return made


def test_study_writes_its_rows_with_command_version_machine_and_seeds(here, small, capsys):
    assert run("study", "known_rank_teacher", "--seeds", 2, "--jobs", 1, "--out", "out") == 0
    result = json.loads((here / "out" / "known_rank_teacher.json").read_text())
    assert result["command"] == "minilora study known_rank_teacher --seeds 2 --jobs 1 --out out"
    assert result["seeds"] == 2 and result["version"] == ml.__version__
    assert [(row["r"], row["seed"]) for row in result["rows"]] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert (here / "out" / "known-rank-teacher.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "Does LoRA find a change of known rank?" in printed and "Means of 2 seeds" in printed
    assert "0.25" in printed  # the mean bound at r = 2
    at_scale = STUDIES["known_rank_teacher"].at_scale
    assert f"Does it hold at scale? {at_scale}" in " ".join(printed.split())


def test_study_goes_on_with_the_runs_that_are_missing(here, small):
    command = ("study", "known_rank_teacher", "--seeds", 2, "--jobs", 1, "--out", "out")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study_commands, "save_json", lambda *args: 1 / 0)  # a power cut
        with pytest.raises(ZeroDivisionError):
            run(*command)
    assert len(small) == 4
    run(*command)
    assert len(small) == 4


def test_finished_study_is_computed_anew(here, small):
    command = ("study", "known_rank_teacher", "--seeds", 1, "--jobs", 1, "--out", "out")
    run(*command)
    run(*command)
    assert len(small) == 4
    assert not (here / "out" / "known_rank_teacher-runs").exists()


@pytest.mark.parametrize(("option", "kind"), [("--out", "png"), ("--svg", "svg")])
def test_figures_are_made_of_the_shipped_results(here, monkeypatch, option, kind):
    monkeypatch.setattr(study_commands, "save_figure", lambda figure, path: path.touch())
    assert run("figures", option, "drawn") == 0
    assert {path.name for path in (here / "drawn").iterdir()} == {
        f"{name.replace('_', '-')}.{kind}"
        for name in (*STUDIES, "lora", "exam", "exam-rates", *(f"compare-{task}" for task in TASKS))
    }


def test_sweep_compares_ranks_on_a_text_of_the_users(here, capsys):
    options = ("--ranks", "1,2", "--steps", 2, "--jobs", 1, "--out", "out")
    assert run("sweep", "--text", "plain.txt", *options) == 0
    rows = json.loads((here / "out" / "sweep.json").read_text())
    assert [(row["method"], row["r"]) for row in rows] == [("full", None), ("lora", 1), ("lora", 2)]
    assert {row["task"] for row in rows} == {"plain.txt"}
    assert (here / "out" / "rank-sweep.png").exists()
    assert "plain.txt" in capsys.readouterr().out


def test_sweep_starts_from_a_model_of_the_users(here):
    model = ml.load_model("docs-tiny")
    ml.save_model(model, "mine")
    options = ("--ranks", "1", "--steps", 1, "--jobs", 1)
    run("sweep", "--text", "plain.txt", *options, "--out", "a")
    run("sweep", "--text", "plain.txt", *options, "--model", "mine", "--out", "b")
    a, b = (json.loads((here / name / "sweep.json").read_text()) for name in "ab")
    assert a == b  # the same weights, from another place


def test_spectrum_of_both_methods(here, capsys):
    options = ("--ranks", "2", "--steps", 2, "--jobs", 1, "--out", "out")
    assert run("spectrum", "--text", "plain.txt", *options) == 0
    rows = json.loads((here / "out" / "spectrum.json").read_text())
    assert len(rows) == 24 and {row["method"] for row in rows} == {"full", "lora"}
    assert all(len(row["singular_values"]) == 2 for row in rows if row["method"] == "lora")
    assert "effective" in capsys.readouterr().out


def test_spectrum_of_an_adapter_that_is_there(here, capsys):
    model = ml.load_model("docs-tiny")
    config = ml.LoraConfig(r=3, init_lora_weights=False, target_modules=["q_proj"])
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    ml.save_adapter(model, "adapter")
    assert run("spectrum", "--adapter", "adapter", "--out", "out") == 0
    rows = json.loads((here / "out" / "spectrum.json").read_text())
    assert [row["path"] for row in rows] == ["layers.0.attn.q_proj", "layers.1.attn.q_proj"]
    assert all(row["r"] == 3 and len(row["singular_values"]) == 3 for row in rows)
    assert "layers.1.attn.q_proj" in capsys.readouterr().out


def test_spectrum_of_a_tuned_model_that_is_there(here):
    model = ml.load_model("docs-tiny")
    model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    ml.save_model(model, "tuned")
    assert run("spectrum", "--tuned", "tuned", "--out", "out") == 0
    (row,) = json.loads((here / "out" / "spectrum.json").read_text())
    assert row["path"] == "layers.0.mlp.up_proj" and row["effective_rank"] == pytest.approx(1)


def interrupted_after(monkeypatch, runs):
    """quality_run as it is, but Ctrl-C comes after so many runs."""
    done, original = [], study_commands.quality_run

    def quality_run(**settings):
        if len(done) == runs:
            raise KeyboardInterrupt
        done.append(settings)
        return original(**settings)

    monkeypatch.setattr(study_commands, "quality_run", quality_run)
    return done


def test_an_edited_text_is_another_sweep(here, monkeypatch):
    command = ("sweep", "--text", "plain.txt", "--ranks", "1", "--steps", 1, "--jobs", 1)
    with monkeypatch.context() as patched:
        interrupted_after(patched, 1)
        assert run(*command, "--out", "out") == 130
    (here / "plain.txt").write_text(TEXT.upper() * 60)
    assert run(*command, "--out", "out") == run(*command, "--out", "fresh") == 0
    results = [(here / name / "sweep.json").read_text() for name in ("out", "fresh")]
    assert results[0] == results[1]


def test_a_finished_sweep_leaves_another_ones_finished_runs(here, monkeypatch):
    command = ("sweep", "--text", "plain.txt", "--ranks", "1", "--steps", 1, "--jobs", 1)
    with monkeypatch.context() as patched:
        interrupted_after(patched, 1)
        assert run(*command, "--seeds", 2, "--out", "out") == 130
    (here / "other.txt").write_text(TEXT.upper() * 60)
    assert run("sweep", "--text", "other.txt", *command[3:], "--out", "out") == 0
    done = interrupted_after(monkeypatch, 99)
    assert run(*command, "--seeds", 2, "--out", "out") == 0
    assert len(done) == 3  # of four: one was there


def test_runs_that_diverge_are_left_out_and_named(here, capsys):
    model = ml.load_model("docs-tiny")
    for p in model.parameters():
        p.data *= 1e6
    ml.save_model(model, "huge")
    options = ("--ranks", "1", "--steps", 2, "--jobs", 1, "--model", "huge", "--out", "out")
    for command in ("sweep", "spectrum"):
        assert run(command, "--text", "plain.txt", *options) == 1
        told = capsys.readouterr().err
        assert "left out, as it diverged: plain.txt, full" in told
        assert "every run diverged" in told.strip().splitlines()[-1]


def test_a_model_of_another_alphabet_is_refused(here, capsys):
    config = ml.TransformerConfig(vocab_size=50, block_size=64, n_layer=1, n_head=1, n_embd=8)
    ml.save_model(ml.Transformer(config, rng=np.random.default_rng(0)), "v50")
    options = ("--ranks", "1", "--steps", 1, "--jobs", 1, "--model", "v50")
    assert run("sweep", "--text", "plain.txt", *options) == 1
    assert "96 symbols and v50 has 50" in capsys.readouterr().err


def test_a_rank_that_cannot_be_is_refused_before_any_run(here, monkeypatch, capsys):
    done = interrupted_after(monkeypatch, 99)
    assert run("sweep", "--ranks", "1,200", "--jobs", 1) == 1
    assert "r=200 is more than" in capsys.readouterr().err
    assert done == []


def test_an_adapter_that_changes_nothing_has_no_spectrum(here, capsys):
    model = ml.load_model("docs-tiny")
    ml.add_adapter(model, ml.LoraConfig(r=2), rng=np.random.default_rng(0))
    ml.save_adapter(model, "zero")
    assert run("spectrum", "--adapter", "zero", "--out", "out") == 1
    assert "ΔW is zero everywhere" in capsys.readouterr().err
    assert not (here / "out" / "spectrum.json").exists()


def test_without_joblib_there_is_one_run_at_a_time(here, monkeypatch, capsys):
    monkeypatch.setattr(study_commands, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert run("sweep", "--text", "plain.txt", "--ranks", "1", "--steps", 1, "--out", "out") == 0
    assert "one run at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("study", "methods", "--backend", "dask"), "go together"),
        (("study", "methods", "--scheduler", "tcp://127.0.0.1:1"), "go together"),
        (("sweep", "--text", "missing.txt", "--jobs", "1"), "missing.txt: there is no such file"),
        (("spectrum", "--adapter", "missing"), "there is no folder 'missing'"),
        (("spectrum", "--tuned", "missing"), "there is no folder 'missing'"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(here, capsys, argv, sentence):
    assert run(*argv) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("minilora: ") and sentence in told


def test_an_unknown_study_is_refused_with_the_names_there_are(capsys):
    with pytest.raises(SystemExit):
        run("study", "rank")
    assert "rank_sweep" in capsys.readouterr().err


def test_lessons_are_listed_with_their_questions(capsys):
    assert run("lessons") == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "00_lora_in_ten_minutes.ipynb" in printed
    assert "How many numbers does LoRA train" in printed and "**" not in printed


def test_lessons_are_copied_and_a_copy_is_never_overwritten(here, capsys):
    assert run("lessons", "--copy", "mine") == 0
    copies = sorted(path.name for path in (here / "mine").iterdir())
    notebooks = [path.name for path in LESSONS.glob("*.ipynb")]
    assert copies == sorted([*notebooks, "GLOSSARY.md"])
    (here / "mine" / copies[0]).write_text("my work")
    assert run("lessons", "--copy", "mine") == 0
    assert (here / "mine" / copies[0]).read_text() == "my work"
    assert f"{copies[0]} is there already" in capsys.readouterr().err


def test_lessons_open_starts_jupyter_on_the_copies(here, monkeypatch):
    started = []

    def start(command, check):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(learning, "find_spec", lambda name: object())
    monkeypatch.setattr(learning.subprocess, "run", start)
    assert run("lessons", "--copy", "mine", "--open") == 0
    assert started == [[sys.executable, "-m", "jupyterlab", "mine"]]


def test_lessons_open_without_jupyter_says_what_to_install(here, monkeypatch, capsys):
    monkeypatch.setattr(learning, "find_spec", lambda name: None)
    assert run("lessons", "--open") == 1
    assert "minilora[lessons]" in capsys.readouterr().err


def test_shipped_rows_are_read_where_the_package_is():
    assert len(shipped_rows("parameter_counts")) == 44
