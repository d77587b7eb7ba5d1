"""Claims about `generate` with a real model's files: texts, a conversation, and the adapter in it.

The model is tiny and writes nonsense; what it writes is compared with what the package writes.
"""

import io
import sys

import numpy as np
import pytest
from builders import tiny
from tokens import smollm2, write_chat_model, write_tokenizer

import minilora as ml
from minilora import cli
from minilora.cli.terminal.output import show
from minilora.cli.terminal.plain import harmless
from minilora.generation.answers import answer

TOKENS = 6


@pytest.fixture
def model(here):
    return write_chat_model(here / "model")


@pytest.fixture
def adapter(model):
    adapted = ml.load_model(model)
    ml.add_adapter(adapted, ml.LoraConfig(r=2), rng=np.random.default_rng(0))
    for p in adapted.trainable_parameters():
        p.data += np.random.default_rng(1).standard_normal(p.shape).astype(p.dtype)
    ml.save_adapter(adapted, "mine")
    return "mine"


@pytest.fixture
def run(capsys, monkeypatch):
    """generate with lines on stdin as a pipe has them: status, stdout, stderr."""

    def run(*argv, lines=(), status=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert cli.main(["generate", "--tokens", str(TOKENS), *map(str, argv)]) == status
        return capsys.readouterr()

    return run


def user(text):
    return {"role": "user", "content": text}


def expected(folder, *messages, adapter=None, seed=0, **options):
    """What the package answers."""
    model = ml.load_model(folder)
    if adapter:
        ml.load_adapter(model, adapter)
    rng = np.random.default_rng((seed, len(messages)))
    return answer(model, ml.load_tokenizer(folder), messages, TOKENS, rng=rng, **options)


def test_a_text_is_continued_with_the_tokenizer_beside_the_model(model, run):
    out = run("--model", model, "--prompt", "LoRA 😀", "--seed", 3).out
    whole = ml.write(
        ml.load_model(model), "LoRA 😀", TOKENS, tokenizer=ml.load_tokenizer(model), seed=3
    )
    assert out == whole + "\n" and out.startswith("LoRA 😀")


def test_one_question_has_its_answer_and_nothing_else_on_stdout(model, run):
    done = run("--model", model, "--chat", "--prompt", "What is LoRA?", "--temperature", 0)
    assert done.out == expected(model, user("What is LoRA?"), temperature=0) + "\n"
    assert done.err == ""


def test_in_a_conversation_each_answer_knows_what_was_said(model, run):
    out = run("--model", model, "--chat", lines=["What is LoRA?", "", "Why?"]).out
    first = expected(model, user("What is LoRA?"))
    said = [user("What is LoRA?"), {"role": "assistant", "content": first}, user("Why?")]
    second = expected(model, *said)
    assert out == (
        f"You: What is LoRA?\nModel: {harmless(first)}\n"
        f"You: \nYou: Why?\nModel: {harmless(second)}\nYou: \n"
    )


@pytest.mark.parametrize("way", [["/exit", "What?"], []])
def test_a_conversation_ends_with_exit_or_with_the_input(model, run, way):
    out = run("--model", model, "--chat", lines=way).out
    assert "Model:" not in out and out.startswith("You:")


def test_new_forgets_what_was_said(model, run):
    out = run("--model", model, "--chat", lines=["What?", "/new", "Why?"]).out
    assert out.endswith(f"Model: {expected(model, user('Why?'))}\nYou: \n")


def test_base_and_adapter_answer_the_last_question_again(adapter, model, run):
    out = run("--adapter", adapter, "--chat", lines=["What?", "/base", "/adapter"]).out
    with_it = harmless(expected(model, user("What?"), adapter=adapter))
    without = harmless(expected(model, user("What?")))
    assert with_it != without
    assert [line for line in out.split("You: ") if line.startswith(("What", "/"))] == [
        f"What?\nAdapter: {with_it}\n",
        f"/base\nBase: {without}\n",
        f"/adapter\nAdapter: {with_it}\n",
    ]


def test_a_side_can_be_chosen_before_the_first_question(adapter, model, run):
    out = run("--adapter", adapter, "--chat", lines=["/base", "What?"]).out
    assert f"Base: {harmless(expected(model, user('What?')))}\n" in out


def test_without_an_adapter_there_are_no_sides_and_an_unknown_command_lists_those_there_are(
    model, run
):
    done = run("--model", model, "--chat", lines=["/base", "/nonsense"])
    assert "There is no adapter; give one with --adapter FOLDER." in done.err
    assert "/new      forget what was said" in done.err and "Model:" not in done.out


def test_what_begins_with_a_slash_and_has_words_is_a_message(model, run):
    text = "/etc/passwd is what?"
    out = run("--model", model, "--chat", lines=[text]).out
    assert f"Model: {expected(model, user(text))}\n" in out


def test_control_characters_are_shown_and_not_obeyed(capsys):
    show("a\x1b[2J\x07\r\tb\n\x9b")
    assert capsys.readouterr().out == "a\ufffd[2J\ufffd\ufffd\tb\n\ufffd"


def test_ctrl_c_stops_an_answer_and_what_was_shown_is_kept(model, monkeypatch, capsys):
    """At a terminal; a second Ctrl-C, at the prompt, leaves."""
    from minilora.cli import writing

    asked, typed = [], iter(["What?", "Go on", KeyboardInterrupt])

    def stopped(model, tokenizer, messages, on_text, **options):
        asked.append(messages)
        on_text("half")
        raise KeyboardInterrupt

    def message(self, prompt):
        line = next(typed)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        self.by_hand = True
        return line

    monkeypatch.setattr(writing, "answer", stopped)
    monkeypatch.setattr(writing.Keyboard, "message", message)
    assert cli.main(["generate", "--model", str(model), "--chat"]) == 0
    assert asked[1] == [user("What?"), {"role": "assistant", "content": "half"}, user("Go on")]
    assert capsys.readouterr().out == "Model: half …\nModel: half …\n\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--chat", "--model", "docs-tiny"], "docs-tiny continues texts, symbol by symbol"),
        (["--chat", "--model", "plain"], "has no chat template, so the model was not trained"),
        (["--model", "bare"], "has no tokenizer.json; load the model's tokenizer"),
        (["--chat", "--model", "small", "--prompt", "What is it?"], "reads 24 at a time; ask less"),
        (
            ["--chat", "--model", "model", "--prompt", "?", "--temperature", "-1"],
            "temperature must",
        ),
        (["--chat", "--model", "other", "--prompt", "?"], "is of another model"),
    ],
)
def test_wrong_use_is_one_sentence(here, model, run, argv, sentence):
    write_chat_model(here / "plain").joinpath("chat_template.jinja").unlink()
    write_chat_model(here / "bare").joinpath("tokenizer.json").unlink()
    write_chat_model(here / "small", block_size=24)
    write_tokenizer(here / "other")
    ml.save_model(tiny(vocab_size=99, block_size=300), here / "other")
    done = run(*argv, status=1)
    assert sentence in done.err and done.err.startswith("minilora: ") and done.err.count("\n") == 1


def test_a_question_that_does_not_fit_ends_a_pipe_with_an_error(here, run):
    small = write_chat_model(here / "small", block_size=24)
    assert "ask less" in run("--chat", "--model", small, lines=["What is it?"], status=1).err


@pytest.mark.system
def test_in_a_terminal_a_conversation_with_ctrl_c_and_ctrl_d(model, terminal):
    shell = terminal("generate", "--model", str(model), "--chat", "--tokens", "200")
    shell.until("Ctrl-C stops an answer")
    shell.type("You:", "What?\n")
    shell.until("Model:")
    shell.type("You:", "/help\n")
    shell.until("/exit     leave")
    shell.type("You:", "\x04")
    assert shell.status() == 0 and "Traceback" not in shell.out


@pytest.mark.system
def test_in_a_terminal_ctrl_c_stops_the_real_model_s_answer(terminal):
    shell = terminal(
        "generate", "--model", str(smollm2()), "--chat", "--tokens", "400", "--temperature", "0"
    )
    shell.type("You:", "Write a long story about a river.\n")
    shell.until("Model:")
    shell.until("the")  # it is under way
    shell.press("\x03")
    shell.until("…")
    shell.type_later("You:", "\x03")
    assert shell.status() == 0 and "Traceback" not in shell.out


@pytest.mark.system
def test_the_real_model_answers(run):
    assert smollm2()
    out = run("--chat", "--prompt", "What is the capital of France?", "--temperature", 0).out
    assert out == "The capital of France is Paris\n"
