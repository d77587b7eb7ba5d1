"""Claims about `minilora inspect`: what it prints, on any terminal, and what it draws."""

import json

import numpy as np
import pytest
from adapter_files import PREFIX, factors, write_adapter

from minilora import cli

TENSORS = {
    **factors("layers.0.attn.q"), **factors("layers.1.attn.q", seed=1),
    **factors("layers.0.mlp.up", 12, 30, r=2, seed=2),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    options = dict(rank_pattern={"up": 2}, base_model_name_or_path="someone/model[7b]")
    return str(write_adapter(tmp_path / "adapter", TENSORS, **options))


def shown(argv, capsys):
    assert cli.main(["inspect", *argv]) == 0
    return capsys.readouterr().out


def test_it_shows_a_row_for_each_kind_and_what_learned_most(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = shown([folder], capsys)
    assert text.startswith("LoRA of someone/model[7b]\n252 numbers in ")
    assert "attn.q" in text and "mlp.up" in text and "layers.0.attn.q  " not in text
    assert "Learned most: model.layers." in text and "Note:" not in text
    assert "model.layers.1.attn.q" in shown([folder, "--all"], capsys)


def test_no_number_is_cut_where_the_terminal_is_narrow(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = shown([folder], capsys)
    assert "…" not in text and max(map(len, text.splitlines())) <= 40 and "12 x 9" in text


def test_its_notes_and_what_is_nan_are_shown(tmp_path, capsys):
    tensors = factors("layers.0.attn.q")
    tensors[f"{PREFIX}layers.0.attn.q.lora_A.weight"][...] = np.nan
    text = shown([str(write_adapter(tmp_path / "nan", tensors))], capsys)
    assert "LoRA of a base model that is not recorded" in text
    assert "NaN" in text and "Note: NaN or infinity in" in text


def test_json_has_every_module_and_nothing_else(folder, capsys):
    data = json.loads(shown([folder, "--json"], capsys))
    assert [one["r"] for one in data["modules"]] == [4, 2, 4]
    assert data["base"] == "someone/model[7b]" and data["numbers"] == 252


@pytest.mark.filterwarnings("always")
def test_names_in_a_file_give_the_terminal_no_orders(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's own orders are colours
    orders = "\x1b[2J\x1b]0;title\x07\x9b1A\u202e\u2066"
    options = {"base_model_name_or_path": f"one{orders}", f"other{orders}": 1}
    folder = write_adapter(tmp_path / "adapter", TENSORS, **options)
    assert cli.main(["inspect", str(folder)]) == 0
    (tmp_path / f"beside{orders}").mkdir()
    (tmp_path / f"beside{orders}" / "adapter_config.json").write_text("{}")
    assert cli.main(["inspect", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "LoRA of one\ufffd[2J\ufffd]0;title" in captured.out and "\x1b[1mmodule" in captured.out
    assert "ignored other\ufffd[2J" in captured.err
    assert "have: adapter, beside\ufffd[2J" in captured.err
    for order in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e", "\u2066"):
        assert order not in captured.out + captured.err


def test_it_draws_a_figure(folder, capsys, tmp_path):
    shown([folder, "--figure", "norms.png"], capsys)
    shown([folder, "--figure", "norms.svg"], capsys)
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "norms.svg").read_bytes()


def test_an_adapter_without_a_change_has_no_figure(tmp_path, capsys):
    tensors = factors("layers.0.attn.q")
    tensors[f"{PREFIX}layers.0.attn.q.lora_B.weight"][...] = 0
    folder = write_adapter(tmp_path / "zero", tensors)
    assert cli.main(["inspect", str(folder), "--figure", "x.png"]) == 1
    captured = capsys.readouterr()
    assert "has not been trained" in captured.out and not (tmp_path / "x.png").exists()
    assert captured.err.startswith("minilora: the adapter in") and "no ΔW to draw" in captured.err


@pytest.mark.parametrize(
    ("argv", "status", "sentence"),
    [
        (["absent"], 1, "there is no folder 'absent'"),
        (["."], 1, "has no adapter_config.json and no adapter_model.safetensors"),
        (["."] * 2, 2, "unrecognized arguments"),
        ([".", "--figure", "x.pdf"], 2, "'x.pdf' does not end in .png or .svg"),
    ],
)
def test_wrong_use_is_one_sentence(argv, status, sentence, capsys):
    try:
        got = cli.main(["inspect", *argv])
    except SystemExit as stopped:
        got = stopped.code
    captured = capsys.readouterr()
    assert got == status and sentence in captured.err and "Traceback" not in captured.err
