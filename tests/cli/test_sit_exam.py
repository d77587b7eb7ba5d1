"""Claims about `minilora sit-exam`, on a tiny model."""

import json

import pytest
from small_exam import FEW, write_chat_model

from minilora.cli import main
from minilora.experiments import exam
from minilora.experiments.exam import MARKED


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(exam, "load_exam", lambda: FEW)
    monkeypatch.setattr(exam, "ANSWER", 3)
    return write_chat_model(tmp_path / "model")


def test_the_base_and_one_adapter_sit_the_exam(folder, tmp_path, capsys):
    out = tmp_path / "exam"
    assert main(["sit-exam", "--model", str(folder), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "base model" in shown and "±" in shown and ", exactly" in shown
    assert FEW.samples[0] in shown
    rows = json.loads((out / "exam.json").read_text("utf-8"))["rows"]
    assert [row["course"] for row in rows] == ["base", "lora"]
    assert {*MARKED, "marks", "losses"} <= rows[1].keys()
    assert {file.name for file in out.iterdir()} == {"exam.json", "exam.png"}


def test_other_rates_are_drawn_by_themselves(folder, tmp_path, capsys):
    out = tmp_path / "exam"
    command = ["sit-exam", "--model", str(folder), "--out", str(out), "--other-rates"]
    assert main(command) == 0
    assert "exam-rates.png" in capsys.readouterr().out
    rows = json.loads((out / "exam.json").read_text("utf-8"))["rows"]
    assert [row["lr"] for row in rows[1:]] == [2e-3, 1e-3, 4e-3]
    assert (out / "exam-rates.png").stat().st_size > 10_000


def test_what_is_finished_is_not_repeated(folder, tmp_path, monkeypatch, capsys):
    """The second course fails the first time; the base is then not asked again."""
    out, asked = tmp_path / "exam", []
    sit = exam.sit

    def failing(model, *rest):
        asked.append(model)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return sit(model, *rest)

    monkeypatch.setattr(exam, "sit", failing)
    command = ["sit-exam", "--model", str(folder), "--out", str(out)]
    assert main(command) == 130
    assert "1 of 2 runs are finished" in capsys.readouterr().err
    assert main(command) == 0
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--courses", "lora,lorra"], "no course 'lorra'"), (["--seeds", "0"], "at least 1")],
)
def test_wrong_options_are_named(options, said, capsys):
    with pytest.raises(SystemExit):
        main(["sit-exam", *options])
    assert said in capsys.readouterr().err


def test_a_model_that_does_not_chat_is_refused(tmp_path, capsys):
    assert main(["sit-exam", "--model", "docs-tiny", "--out", str(tmp_path / "exam")]) == 1
    assert "reads the symbols of ALPHABET" in capsys.readouterr().err
