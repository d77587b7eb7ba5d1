"""Claims about `finetune --data`: a real model's files in, an adapter of PEFT's out, and what was
learned shown. The model is tiny, but where SmolLM2 is installed and its process is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from terminal import ROOT
from tokens import smollm2, write_chat_model

import minilora as ml
from minilora import cli
from minilora.cli.training import LOG

PAIRS = [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in range(20)]


@pytest.fixture
def model(here):
    (here / "sums.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    (here / "words.txt").write_text("LoRA learns a low-rank change of a frozen matrix.\n" * 400)
    return str(write_chat_model(here / "model"))


def finetune(*argv, status=0):
    assert cli.main(["finetune", *map(str, argv)]) == status


QUICK = ["--steps", "12", "--lr", "0.02"]


@pytest.mark.parametrize(
    ("method", "files"),
    [
        ("lora", {"adapter_config.json", "adapter_model.safetensors", LOG}),
        (
            "full",
            {"config.json", "model.safetensors", LOG, "tokenizer.json", "tokenizer_config.json",
             "generation_config.json", "chat_template.jinja"},
        ),
    ],
)  # fmt: skip
def test_answers_are_learned_saved_and_chatted_with(model, method, files, here, capsys):
    finetune("--data", "sums.jsonl", "--model", model, "--method", method, *QUICK)
    captured = capsys.readouterr()
    assert "sums.jsonl: 20 chats (question, answer), 2 of them held out" in captured.err
    folder = here / "minilora-results" / f"sums-{method}"
    assert {path.name for path in folder.iterdir()} == files
    pattern = r"nats per token on what was held out: (\d\.\d+) → (\d\.\d+)\n"
    before, after = (float(x) for x in re.search(pattern, captured.out).groups())
    assert after < before
    asked, base, tuned = re.search(
        r"\nAsked: (.*)\nbase: ([\s\S]*)\n(?:LoRA|full fine-tuning): ([\s\S]*?)\n\nSaved",
        captured.out,
    ).groups()
    assert asked in [pair["question"] for pair in PAIRS] and base != tuned
    option = "--adapter" if method == "lora" else "--model"
    suggested = f"minilora-results/sums-{method}"
    assert f"Try: minilora generate {option} {suggested} --chat" in captured.out
    argv = ["generate", option, suggested, "--chat", "--prompt", asked, "--temperature", "0"]
    assert cli.main([*argv, "--tokens", "60"]) == 0
    assert capsys.readouterr().out.strip() == tuned


def test_an_adapter_of_answers_finds_its_base_and_is_peft_s(model, here, capsys):
    finetune("--data", "sums.jsonl", "--model", model, *QUICK, "--out", "mine")
    written = json.loads((here / "mine" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == model and written["r"] == 8
    base = ml.load_model(model)
    ml.load_adapter(base, "mine")
    assert ml.active_adapter(base) == "default"


def test_a_text_is_learned_in_the_model_s_tokens(model, capsys):
    finetune("--data", "words.txt", "--model", model, *QUICK)
    out = capsys.readouterr().out
    before, after = (float(x) for x in re.search(r"held out: (\d\.\d+) → (\d\.\d+)", out).groups())
    assert after < before and "--prompt" in out.splitlines()[-1]


def test_a_text_without_a_model_goes_to_docs_tiny_as_before(model, capsys):
    finetune("--data", "words.txt", "--steps", "1")
    finetune("--text", "words.txt", "--steps", "1")
    out = capsys.readouterr().out
    assert out.count("trainable params: 18,432 ||") == 2 and "nats per character" in out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["sums.jsonl", "--model", "docs-tiny"], "docs-tiny continues texts, symbol by symbol"),
        (["bad.jsonl", "--model", "model"], "bad.jsonl, line 2 is damaged (Expecting"),
        (["none.jsonl", "--model", "model"], "cannot read none.jsonl: there is no such file"),
        (["sums.jsonl", "--model", "nowhere"], "there is no folder 'nowhere'"),
        (["sums.jsonl", "--model", "model", "--rank", "99"], "r=99 is more than"),
        (["sums.jsonl", "--model", "plain"], "has no chat template"),
        (["sums.jsonl", "--model", "model", "--quantized"], "is not in few bits"),
        (["words.txt", "--quantized"], "--quantized is for a .gguf file"),
    ],
)
def test_wrong_use_is_one_sentence(model, here, capsys, argv, sentence):
    (here / "bad.jsonl").write_text(json.dumps(PAIRS[0]) + "\n{")
    write_chat_model(here / "plain").joinpath("chat_template.jinja").unlink()
    finetune("--data", *argv, status=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("minilora: ") and sentence in line


def start(*argv):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "minilora", *argv], env=env)


@pytest.mark.system
def test_the_real_model_learns_in_its_four_bits(model, capsys):
    path = smollm2()
    finetune("--data", "sums.jsonl", "--model", path, "--quantized", "--steps", "2", "--out", "q")
    assert "all params: 136,957,248" in capsys.readouterr().out
    finetune(
        *("--data", "sums.jsonl", "--model", path, "--quantized", "--method", "full"), status=1
    )
    assert "kept in few bits and cannot train" in capsys.readouterr().err


@pytest.mark.system
def test_the_real_model_s_run_is_killed_and_goes_on_to_the_same_adapter(model, here):
    assert smollm2()
    argv = ["finetune", "--data", "sums.jsonl", "--steps", "6"]
    assert start(*argv, "--out", "whole").wait() == 0
    killed = start(*argv, "--out", "killed")
    checkpoint = here / "killed" / "checkpoint.safetensors"
    until = time.monotonic() + 120
    while not checkpoint.exists():  # that of step 4
        assert time.monotonic() < until and killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and checkpoint.exists()
    assert start(*argv, "--out", "killed").wait() == 0
    whole, resumed = (
        (here / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == resumed and len(whole) > np.float32().nbytes * 2_442_240
