"""Claims about the command line: what is typed is what is done, and errors are one sentence.

Commands run in this process. Where the process itself is the subject (Ctrl-C, encodings, a reader
who leaves), a real one is started.
"""

import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minilora as ml
from minilora import cli
from minilora.cli import COMMANDS, doctor, looking
from minilora.cli import training as commands
from minilora.cli.terminal import output
from minilora.cli.training import LOG
from minilora.experiments.tasks import BASE_MODELS, load_task
from minilora.lora import lora_layers
from minilora.methods.registry import LABELS
from minilora.system.errors import UsageError

PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 40
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def text(here):
    (here / "times.txt").write_text(PROSE, "utf-8")
    return "times.txt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A comparison from beginning to end: its exit status, what it printed, what it wrote."""
    out = tmp_path_factory.mktemp("finished") / "new folder"
    argv = ["--seeds", "2", "--seed", "4", "--steps", "2", "--json", "--out", str(out)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        status = cli.main(argv)
    return SimpleNamespace(
        status=status, argv=argv, stdout=stdout.getvalue(), stderr=stderr.getvalue(), out=out
    )


@pytest.fixture
def asked(monkeypatch, finished):
    """What compare() is asked for, one call for each task; the answers are those of `finished`."""
    calls = []
    entry = json.loads(finished.stdout)["tasks"][0]

    def compare(task, out, **options):
        calls.append(SimpleNamespace(task=task, out=out, options=options))
        return entry | {"task": task.name}

    monkeypatch.setattr(commands, "compare", compare)
    return calls


def start(*argv, program=("-m", "minilora"), **options):
    """Run a process to its end, of the package that is tested here, be it installed or not; its
    output is buffered, as that of any Python in a pipe."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **options.pop("env", {})}
    env.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-W", "error", *program, *argv]
    return subprocess.run(command, env=env, timeout=120, **options)


def error_of(argv, capsys):
    """The one sentence on stderr of a command that must fail."""
    assert cli.main(argv) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and "Written" not in captured.out
    (line,) = (line for line in captured.err.splitlines() if line.startswith("minilora: "))
    assert captured.err.rstrip().endswith(line)
    return line


def exit_of(argv):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    return stopped.value.code


# compare


def test_json_prints_results_json_and_nothing_else_on_stdout(finished):
    assert finished.status == 0 and finished.stdout.count("\n") == 1
    written = (finished.out / "results.json").read_text("utf-8")
    assert json.loads(finished.stdout) == json.loads(written)
    assert "NaN" not in written and "Infinity" not in written
    assert "seed 4" in finished.stderr and "Traceback" not in finished.stderr


def test_results_say_what_made_them(finished):
    results = json.loads(finished.stdout)
    assert set(results) == {"version", "command", "machine", "tasks"}
    assert results["version"] == ml.__version__
    assert shlex.split(results["command"]) == ["minilora", "compare", *finished.argv]
    assert results["machine"]["numpy"] == np.__version__
    assert results["machine"]["cores"] == os.cpu_count()


def test_each_seed_runs_each_method_for_the_asked_steps(finished):
    (entry,) = json.loads(finished.stdout)["tasks"]
    assert [(run["seed"], run["method"]) for run in entry["runs"]] == [
        (seed, method) for seed in (4, 5) for method in ("full", "lora", "scratch")
    ]
    assert {run["steps"] for run in entry["runs"]} == {2}
    assert all(len(run["losses"]) == 2 for run in entry["runs"])


def test_figure_models_and_results_are_written_to_out(finished):
    assert sorted(path.name for path in finished.out.iterdir()) == [
        "code-full",
        "code-lora",
        "code.png",
        "results.json",
    ]
    assert (finished.out / "code.png").read_bytes()[:4] == b"\x89PNG"


def test_bare_invocation_is_the_code_comparison_with_its_own_recipe(asked, here, capsys):
    assert cli.main([]) == 0
    (call,) = asked
    recipe = load_task("code")
    assert (call.task.name, call.task.steps, call.task.lr) == ("code", recipe.steps, recipe.lr)
    assert call.task.lora == recipe.lora and call.options["rates"] == {}
    assert not {"r", "lora_alpha", "target_modules"} & call.options.keys()
    assert call.options["steps"] is call.options["threads"] is None
    assert list(call.options["seeds"]) == [0] and call.out == Path("minilora-results")
    table = capsys.readouterr().out
    assert "learning rate" in table and "LoRA trained 4.4% of the parameters" in table
    assert "Written to minilora-results: results.json" in table
    results = json.loads((here / "minilora-results" / "results.json").read_text("utf-8"))
    assert results["command"] == "minilora compare"
    assert (here / "minilora-results" / "code.png").is_file()


def test_command_line_of_the_process_is_used_when_none_is_given(asked, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["minilora", "compare", "--seed", "9"])
    assert cli.main() == 0
    assert list(asked[0].options["seeds"]) == [9]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["--rank", "1"], {"r": 1}),
        (["--rank", "2", "--alpha", "5"], {"r": 2, "lora_alpha": 5}),
        (["--targets", "q_proj,v_proj"], {"target_modules": ["q_proj", "v_proj"]}),
        (["--targets", "all-linear"], {"target_modules": "all-linear"}),
    ],
)
def test_lora_options_reach_the_comparison(asked, argv, expected):
    assert cli.main(argv) == 0
    names = ("r", "lora_alpha", "target_modules")
    assert {k: asked[0].options[k] for k in names if k in asked[0].options} == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--lr", "0.02"], ({"lora": 0.02}, None)),
        (["--full-lr", "0.03"], ({"full": 0.03}, None)),
        (["--lr", "0.02", "--full-lr", "0", "--steps", "7"], ({"full": 0, "lora": 0.02}, 7)),
        (["--quick"], ({}, 40)),
        (["--quick", "--steps", "7"], ({}, 7)),
    ],
)
def test_rates_and_steps_reach_the_training(asked, argv, expected):
    assert cli.main(argv) == 0
    assert (asked[0].options["rates"], asked[0].options["steps"]) == expected


@pytest.mark.parametrize(
    ("argv", "methods"),
    [
        ([], ["full", "lora", "scratch"]),
        (["--methods", "bitfit"], ["bitfit"]),
        (["--methods", "lora+,full, dora"], ["lora+", "full", "dora"]),
        (["--methods", "lora,full,lora"], ["lora", "full"]),
        (["--methods", ",".join(LABELS)], list(LABELS)),
    ],
)
def test_methods_reach_the_comparison_each_once(asked, argv, methods):
    assert cli.main(argv) == 0
    assert list(asked[0].options["methods"]) == methods


@pytest.mark.parametrize(("names", "wrong"), [("full,lore", "lore"), ("", ""), ("lora,", "")])
def test_a_method_that_does_not_exist_is_an_error_that_names_those_that_do(names, wrong, capsys):
    assert exit_of(["--methods", names]) == 2
    error = capsys.readouterr().err
    assert f"argument --methods: no method {wrong!r}; use: full, head, last-block, " in error
    assert "lora-xs, scratch" in error and "Traceback" not in error


def test_threads_reach_the_comparison(asked):
    assert cli.main(["--threads", "1"]) == 0
    assert asked[0].options["threads"] == 1


@pytest.mark.parametrize("command", ["finetune", "pretrain"])
def test_threads_reach_the_training_of_one_model(command, text, monkeypatch):
    def run(trainings, threads, say):
        raise UsageError(f"{threads} threads")

    monkeypatch.setattr(commands, "run", run)
    argv = [command, *(["--text", text] if command == "finetune" else [])]
    for asked_for, got in ((["--threads", "3"], "3 threads"), ([], "None threads")):
        with redirect_stderr(io.StringIO()) as stderr:
            assert cli.main([*argv, *asked_for]) == 1
        assert stderr.getvalue().strip() == f"minilora: {got}"


def test_options_change_what_is_really_trained(here, text, capsys):
    argv = ["--text", text, "--rank", "1", "--targets", "q_proj,v_proj", "--lr", "0.004"]
    assert cli.main([*argv, "--steps", "1", "--json", "--out", "x"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["tasks"]
    full, lora, _ = entry["runs"]
    assert entry["task"] == "times.txt" and entry["about"].endswith("→ times.txt")
    assert lora["trainable"] == 2 * 2 * (128 + 128)  # layers, matrices, r = 1
    assert (lora["lr"], full["lr"], lora["steps"]) == (0.004, 0.001, 1)


def test_quick_says_that_its_steps_are_few(asked, capsys):
    cli.main(["--quick"])
    assert "These were 2 steps, to see it work" in capsys.readouterr().out  # those of the entry
    cli.main([])
    assert "to see it work" not in capsys.readouterr().out


def test_all_tasks_go_into_one_results_json_and_a_figure_each(asked, here, capsys):
    assert cli.main(["--task", "all", "--out", "x"]) == 0
    assert [call.task.name for call in asked] == ["code", "reverse", "sort"]
    results = json.loads((here / "x" / "results.json").read_text("utf-8"))
    assert [entry["task"] for entry in results["tasks"]] == ["code", "reverse", "sort"]
    assert sorted(path.name for path in (here / "x").glob("*.png")) == [
        "code.png",
        "reverse.png",
        "sort.png",
    ]
    assert capsys.readouterr().out.count("learning rate") == 3


# errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  \n ", "is empty"),
        (b"a few words", "is too short: it has 11 usable characters"),
        (b"abc\0def" * 1000, "it is a binary file or UTF-16"),
        (b"caf\xe9 " * 1000, "is not UTF-8: byte 0xe9 at offset 3"),
        ("слово ".encode() * 1000, "choose a text in the Latin alphabet"),
        (None, "there is no such file; check its name"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "finetune"])
def test_text_that_cannot_be_used_is_explained(command, content, message, here, capsys):
    if content is not None:
        (here / "text.txt").write_bytes(content)
    line = error_of([command, "--text", "text.txt"], capsys)
    assert message in line and "text.txt" in line
    assert not (here / "minilora-results").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["generate", "--model", "no-such"],
            "there is no folder 'no-such'; models known by name: docs",
        ),
        (["params", "--model", "no-such"], "models known by name: docs-tiny, words-tiny, smollm2"),
        (["generate", "--adapter", "no-such"], "there is no folder 'no-such'"),
        (["pretrain", "no-such"], "there is no base model 'no-such'; use: docs-tiny, words-tiny"),
        (["--rank", "0"], "r must be a whole number of at least 1, got 0"),
        (["--rank", "-3"], "r must be a whole number of at least 1, got -3"),
        (["--rank", "129"], "r=129 is more than layers.0.attn.q_proj (128 x 128) can use"),
        (["params", "--rank", "129"], "its rank is at most 128; lower r"),
        (["params", "8x8", "--rank", "0"], "r must be a whole number of at least 1, got 0"),
        (["--targets", "query"], "target_modules=['query'] matches no Linear; this model has: q_"),
        (["params", "--targets", "query"], "this model has: q_proj, k_proj, v_proj, o_proj, up_"),
        (["--lr", "0"], "lr must be a positive number, got 0"),
        (["--lr", "nan"], "lr must be a positive number, got nan"),
        (["--full-lr", "-1"], "lr must be a positive number, got -1"),
        (["generate", "--temperature", "-1"], "temperature must be >= 0"),
        (["generate", "--top-p", "0"], "top_p must lie in (0, 1]"),
        (["generate", "--prompt", ""], "prompt"),
        (["--alpha", "0"], "lora_alpha must be a positive number, got 0"),
        (["--alpha", "nan"], "lora_alpha must be a positive number, got nan"),
        (["--methods", "full", "--rank", "3"], "a rank, alpha or targets mean nothing to full"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(argv, message, capsys):
    assert message in error_of(argv, capsys)


@pytest.mark.parametrize("rate", ["0", "-0.1", "inf"])
def test_finetune_refuses_a_rate_that_is_not_one(rate, text, capsys):
    argv = ["finetune", "--text", text, "--lr", rate]
    assert "lr must be a positive number" in error_of(argv, capsys)


def test_diverging_training_is_one_sentence_with_the_remedy(text, capsys):
    with np.errstate(all="ignore"):
        line = error_of(
            ["finetune", "--text", text, "--method", "full", "--lr", "1e30", "--steps", "30"],
            capsys,
        )
    assert "Use a learning rate below 1e+30" in line


def test_options_that_are_wrong_write_nothing_to_stdout(capsys):
    error_of(["generate", "--temperature", "-1"], capsys)
    cli.main(["generate", "--temperature", "-1"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", ["compare", "finetune", "pretrain"])
@pytest.mark.parametrize("place", ["below a file", "a file", "read-only"])
def test_unwritable_out_is_found_before_the_training(
    command, place, here, text, monkeypatch, capsys
):
    def never(*args, **options):
        raise AssertionError("it trained")

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("compare", "run"):
        monkeypatch.setattr(commands, name, never)
    out = {"below a file": f"{text}/x", "a file": text, "read-only": "x"}[place]
    if place == "read-only":
        monkeypatch.setattr(Path, "mkdir", refuse)
    argv = [command, "--out", out] + (["--text", text] if command == "finetune" else [])
    line = error_of(argv, capsys)
    if command != "pretrain":
        assert f"cannot write {out}: " in line
    assert re.search("; choose another( folder| name)? with --out$", line)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "0"], "'0' is not a whole number of at least 1"),
        (["--steps", "few"], "'few' is not a whole number"),
        (["--seeds", "-1"], "'-1' is not a whole number"),
        (["--threads", "0"], "'0' is not a whole number of at least 1"),
        (["--seed", "-1"], "'-1' is not a whole number of at least 0"),
        (["generate", "--seed", "x"], "'x' is not a whole number of at least 0"),
        (["--task", "no-such"], "invalid choice: 'no-such'"),
        (["--rank", "x"], "invalid int value: 'x'"),
        (["--task", "code", "--text", "a.txt"], "--text: not allowed with argument --task"),
        (["sweep", "--text", "a.txt", "--task", "sort"], "--task: not allowed with argument --t"),
        (["--seeds", "²"], "'²' is not a whole number of at least 1"),
        (["finetune"], "the following arguments are required: --data"),
        (["params", "4x"], "'4x' is not a shape such as 4096x4096"),
        (["params", "4x0"], "'4x0' is not a shape"),
        (["params", "4x4x4"], "'4x4x4' is not a shape"),
        (["params", "axb"], "'axb' is not a shape"),
        (["generate", "--tokens", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_option_that_makes_no_sense_exits_with_2_and_says_which(argv, message, capsys):
    assert exit_of(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and "Traceback" not in captured.err


def test_an_unknown_command_names_the_nearest_and_lists_them_all(capsys):
    assert cli.main(["generat", "--tokens", "3"]) == 2
    error = capsys.readouterr().err
    assert "no command 'generat'; did you mean generate?" in error
    assert all(command in error for command in COMMANDS)


def test_only_errors_that_a_user_can_mend_lose_their_traceback(monkeypatch, capsys):
    def broken(args):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(looking, "run_params", broken)
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["params"])
    monkeypatch.setenv("MINILORA_TRACEBACK", "1")
    with pytest.raises(UsageError):
        cli.main(["generate", "--temperature", "-1"])


def test_a_full_disk_is_named_with_its_file_and_remedy(monkeypatch, capsys):
    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device", "out/results.json")

    monkeypatch.setattr(looking, "run_params", full)
    line = error_of(["params"], capsys)
    assert "out/results.json: the disk is full" in line


def test_an_error_of_the_system_names_its_file_without_a_number(monkeypatch, capsys):
    def absent(args):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "out/results.json")

    monkeypatch.setattr(looking, "run_params", absent)
    line = error_of(["params"], capsys)
    assert line == "minilora: out/results.json: No such file or directory"


def test_no_number_is_cut_where_the_terminal_is_narrow(monkeypatch, capsys):
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(["params"]) == 0
        shown = capsys.readouterr().out
        assert "…" not in shown and "417,280" in shown and "18,432" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert exit_of([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: minilora {command}") and "--help" in text


def test_help_names_every_command_and_the_default(capsys):
    assert exit_of(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)
    assert "Without a command: compare." in text


def test_help_loads_none_of_what_the_commands_need():
    code = (
        "import sys\nfrom minilora import cli\ntry:\n    cli.main(['--help'])\n"
        "except SystemExit:\n    print(*sys.modules, file=sys.stderr)"
    )
    loaded = start(program=("-c", code)).stderr.decode().split()
    above = ("minilora.experiments", "minilora.studies", "minilora.learn", "concurrent", "tqdm")
    assert "minilora.cli.options" in loaded
    assert [name for name in loaded if name.startswith(above)] == []


def test_help_of_compare_names_every_option_of_the_issue(capsys):
    exit_of(["compare", "--help"])
    text = capsys.readouterr().out
    options = "task rank alpha targets lr steps seed seeds threads text quick json out".split()
    assert all(re.search(rf"--{option}\b", text) for option in options)


def test_version_is_that_of_the_package(capsys):
    assert exit_of(["--version"]) == 0
    assert capsys.readouterr().out == f"minilora {ml.__version__}\n"


def test_command_minilora_is_python_m_minilora():
    assert PROJECT["scripts"] == {"minilora": "minilora.__main__:run"}


# A command whose process waits at its end for another, and Ctrl-C meanwhile.
CTRL_C_AT_THE_END = """
import atexit, os, signal, sys, time
from minilora.__main__ import run
def wait():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
atexit.register(wait)
sys.exit(run())
"""


@pytest.mark.system
def test_ctrl_c_while_the_process_ends_shows_no_traceback(here):
    ended = start("params", program=("-c", CTRL_C_AT_THE_END), text=True)
    assert ended.returncode == -signal.SIGINT and ended.stderr == ""


# generate


def generated(argv, capsys):
    assert cli.main(["generate", *argv]) == 0
    return capsys.readouterr().out


def test_generate_writes_what_the_model_generates(capsys):
    out = generated(["--prompt", "A list ", "--tokens", "20", "--seed", "3"], capsys)
    ids = ml.generate(
        ml.load_model("docs-tiny"),
        ml.encode("A list ")[None],
        20,
        temperature=0.7,
        rng=np.random.default_rng(3),
    )
    assert out == ml.decode(ids[0]) + "\n"


def test_generate_depends_on_the_seed_alone(capsys):
    first, again, other = (
        generated(["--tokens", "30", "--seed", seed], capsys) for seed in ("1", "1", "2")
    )
    assert first == again != other


def test_temperature_0_takes_the_likeliest_whatever_the_seed(capsys):
    greedy = ["--tokens", "30", "--temperature", "0", "--seed"]
    first, other = generated([*greedy, "1"], capsys), generated([*greedy, "2"], capsys)
    ids = ml.generate(ml.load_model("docs-tiny"), ml.encode("The ")[None], 30, temperature=0)
    assert first == other == ml.decode(ids[0]) + "\n"


def test_top_k_and_top_p_of_next_to_nothing_are_greedy(capsys):
    greedy = generated(["--tokens", "30", "--temperature", "0"], capsys)
    assert generated(["--tokens", "30", "--top-k", "1"], capsys) == greedy
    assert generated(["--tokens", "30", "--top-p", "1e-9"], capsys) == greedy
    assert generated(["--tokens", "30"], capsys) != greedy


def test_generate_shows_each_token_as_soon_as_it_is_there(monkeypatch):
    class Screen(io.StringIO):
        shown = ()

        def flush(self):
            self.shown = (*self.shown, self.getvalue())

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    cli.main(["generate", "--prompt", "The ", "--tokens", "10", "--temperature", "0"])
    monkeypatch.undo()
    lengths = [len(text) for text in dict.fromkeys(screen.shown)]
    assert lengths[:10] == list(range(5, 15))  # the prompt's 4 and each new one


def test_prompt_is_written_in_the_models_alphabet(capsys):
    assert generated(["--prompt", "“Café”\t", "--tokens", "1"], capsys).startswith('"Cafe"    ')


def test_word_model_answers(capsys):
    out = generated(
        ["--model", "words-tiny", "--prompt", "=brave>", "--tokens", "5", "--temperature", "0"],
        capsys,
    )
    assert out == "=brave>brave\n"
    assert generated(["--model", "words-tiny"], capsys) == "=brave>brave\n"  # up to its newline


def test_an_adapter_comes_with_the_base_it_was_trained_on(here, capsys):
    model = ml.load_model("words-tiny")
    ml.add_adapter(model, ml.LoraConfig(r=2), rng=np.random.default_rng(0))
    ml.save_adapter(model, "mine")
    assert generated(["--adapter", "mine", "--prompt", "=brave>"], capsys) == "=brave>brave\n"
    line = error_of(["generate", "--adapter", "mine", "--model", "docs-tiny"], capsys)
    assert "was trained on words-tiny, this is docs-tiny" in line and len(line) < 400
    config = json.loads((here / "mine" / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "far/away"
    (here / "mine" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    line = error_of(["generate", "--adapter", "mine"], capsys)
    assert "mine was trained on far/away, which is not here; give its folder with --model" in line


# finetune


@pytest.mark.parametrize(
    ("method", "files", "option"),
    [
        ("lora", ["adapter_config.json", "adapter_model.safetensors", LOG], "--adapter"),
        ("full", ["config.json", "model.safetensors", LOG], "--model"),
    ],
)
def test_finetuned_model_is_saved_and_generates(method, files, option, text, here, capsys):
    argv = ["finetune", "--text", text, "--method", method, "--steps", "12", "--lr", "0.01"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    folder = Path("minilora-results") / f"times-{method}"
    assert sorted(path.name for path in folder.iterdir()) == files
    before, after = (float(x) for x in re.search(r"(\d\.\d+) → (\d\.\d+)", out).groups())
    assert after < before
    assert f"Try: minilora generate {option} {folder} --prompt " in out
    assert ("trainable params: 18,432 ||" if method == "lora" else "trainable%: 100.0000") in out
    greedy = ["--prompt", "It was ", "--tokens", "40", "--temperature", "0"]
    tuned = generated([*greedy, option, str(folder)], capsys)
    assert tuned.startswith("It was ") and tuned != generated(greedy, capsys)


def test_an_adapter_of_another_text_is_not_overwritten(here, capsys):
    for folder in ("a", "b"):
        (here / folder).mkdir()
        (here / folder / "notes.txt").write_text(PROSE + folder, "utf-8")
    steps = ["--steps", "1"]
    assert cli.main(["finetune", "--text", "a/notes.txt", *steps]) == 0
    for command in (["finetune"], ["compare", "--methods", "lora"]):
        line = error_of([*command, "--text", "b/notes.txt", *steps], capsys)
        assert f"notes-lora is of {here / 'a' / 'notes.txt'}; choose another folder with" in line
    assert cli.main(["finetune", "--text", "a/notes.txt", *steps]) == 0
    assert "will be replaced (another --out keeps them)" in capsys.readouterr().err
    assert cli.main(["finetune", "--text", "b/notes.txt", *steps, "--out", "other"]) == 0
    assert "replaced" not in capsys.readouterr().err


def test_a_comparison_says_what_it_replaces_what_it_saved_and_what_to_do_next(text, capsys):
    argv = ["--text", text, "--steps", "1", "--methods", "lora,bitfit", "--out", "o u t"]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    assert "replaced" not in captured.err and "step 1 of 1, loss: LoRA " in captured.err
    assert "Written to o u t: results.json, times.txt.png, times-lora.\n" in captured.out
    assert "Measured, but not saved: BitFit.\n" in captured.out
    command = captured.out.splitlines()[-1].removeprefix("Try: ")
    assert shlex.split(command)[:4] == ["minilora", "generate", "--adapter", "o u t/times-lora"]
    assert cli.main(shlex.split(command)[1:]) == 0
    assert cli.main(argv) == 0
    assert "o u t/results.json, o u t/times-lora" in capsys.readouterr().err


def test_a_suggestion_starts_minilora_as_it_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/minilora/__main__.py"])
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-m", "minilora"])
    assert output.suggest("params", "a b") == "Try: .venv/bin/python -m minilora params 'a b'"
    monkeypatch.setattr(sys, "argv", ["/x/bin/minilora"])
    assert output.suggest("params") == "Try: minilora params"


def test_finetune_trains_with_the_asked_adapter_seed_and_folder(text, here, capsys):
    argv = ["finetune", "--text", text, "--steps", "1", "--rank", "2", "--targets", "o_proj"]
    for seed, folder in (("0", "a"), ("0", "b"), ("1", "c")):
        assert cli.main([*argv, "--seed", seed, "--out", folder]) == 0
    assert "trainable params: 1,024 ||" in capsys.readouterr().out  # 2 layers, 2 (128 + 128)
    a, b, c = ((here / x / "adapter_model.safetensors").read_bytes() for x in "abc")
    assert a == b != c
    first = {}  # B starts at zero, so that the first step does not change A
    for folder in "ac":
        model = ml.load_model("docs-tiny")
        ml.load_adapter(model, folder)
        first[folder] = lora_layers(model)["layers.0.attn.o_proj"].adapters["default"].A.data
    assert not np.array_equal(first["a"], first["c"])


def test_finetuned_adapter_is_the_same_whatever_the_threads(text, here):
    for threads in ("1", "2"):
        argv = ["finetune", "--text", text, "--steps", "3", "--threads", threads]
        assert cli.main([*argv, "--out", threads]) == 0
    one, two = ((here / x / "adapter_model.safetensors").read_bytes() for x in "12")
    assert one == two


# params


def table_rows(text):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]


def test_params_of_a_shape(capsys):
    assert cli.main(["params", "4096x4096", "--rank", "8"]) == 0
    row = ["4096 x 4096", "4096 x 4096", "16,777,216", "65,536", "0.39%"]
    assert row in table_rows(capsys.readouterr().out)


def test_params_of_several_shapes_several_times(capsys):
    assert cli.main(["params", "10x20", "30X5", "--rank", "2", "--times", "3"]) == 0
    rows = table_rows(capsys.readouterr().out)
    assert ["10 x 20", "10 x 20 (3 times)", "600", "180", "30.00%"] in rows
    assert ["30 x 5", "30 x 5 (3 times)", "450", "210", "46.67%"] in rows
    assert ["all these", "", "1,050", "390", "37.14%"] in rows


@pytest.mark.parametrize(
    ("argv", "r", "layers", "per_layer", "total", "trained", "share"),
    [
        # 4 matrices 128 x 128, up 128 x 512, down 512 x 128: r (4 * 256 + 2 * 640) a layer
        ([], 4, 2, 6, "417,280", "18,432", "4.42%"),
        (["--rank", "8"], 8, 2, 6, "417,280", "36,864", "8.83%"),
        (["--targets", "q_proj, v_proj"], 4, 2, 2, "417,280", "4,096", "0.98%"),
        # 64 wide, 4 layers: r (4 * 128 + 2 * 320) a layer
        (["--model", "words-tiny", "--rank", "2"], 2, 4, 6, "208,000", "9,216", "4.43%"),
    ],
)
def test_params_of_a_model(argv, r, layers, per_layer, total, trained, share, capsys):
    assert cli.main(["params", *argv]) == 0
    out = capsys.readouterr().out
    rows = [row for row in table_rows(out) if row]
    assert rows[-1] == ["the whole model", "", total, trained, share]
    assert len(rows) == layers * per_layer + 1 and f"LoRA of rank {r} on" in out
    counted = [int(row[3].replace(",", "")) for row in rows]
    assert sum(counted[:-1]) == counted[-1]


def test_params_fit_in_80_columns_with_every_name_whole(capsys):
    cli.main(["params"])
    out = capsys.readouterr().out
    assert "layers.1.mlp.down_proj" in out and "…" not in out


def test_brackets_in_a_folders_name_are_not_markup(here, capsys):
    ml.save_model(ml.load_model("words-tiny"), here / "[/b] [red]")
    assert cli.main(["params", "--model", "[/b] [red]"]) == 0
    assert "[/b] [red]" in capsys.readouterr().out


# doctor


def test_doctor_finds_this_machine_well(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "MISSING" not in out and "docs-tiny" in out and "numpy" in out


def test_doctor_fails_and_prints_the_remedy_if_something_is_missing(monkeypatch, capsys):
    checks = [
        doctor.Check("Python", True, "3.11.7"),
        doctor.Check("numpy", False, "not [installed]", "pip install numpy"),
        doctor.Check("torch", None, "not installed", "for the parity extra: pip install torch"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: checks)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert ["numpy", "MISSING", "not [installed]"] in table_rows(out)
    assert ["torch", "optional", "not installed"] in table_rows(out)
    assert "\nnumpy: pip install numpy\n" in out
    monkeypatch.setattr(doctor, "examine", lambda: [checks[0], checks[2]])
    assert cli.main(["doctor"]) == 0


# pretrain


def test_pretrain_makes_each_base_model_and_a_log_with_its_command(here, capsys):
    assert cli.main(["pretrain", "--steps", "12", "--out", "made"]) == 0
    out = capsys.readouterr().out
    for name, base in BASE_MODELS.items():
        folder = here / "made" / name
        assert sorted(path.name for path in folder.iterdir()) == [
            "config.json",
            "model.safetensors",
            "training.json",
        ]
        log = json.loads((folder / "training.json").read_text("utf-8"))
        assert log["command"] == "minilora pretrain --steps 12 --out made"
        data = base.data()
        metric = data.metric
        assert (log["version"], log["metric"]) == (ml.__version__, metric.name)
        assert [step for step, _ in log["val_by_step"]] == [0, 12]
        assert len(log["mean_loss_of_10_steps"]) == 2
        model = ml.load_model(folder)
        assert model.config == base.model
        assert data.quality(model, "val") == log["val"]
        assert f"{name}: {metric.unit} {metric.format.format(log['val'])} (val)" in out
        # Half of float32: float16, and a header.
        size = (folder / "model.safetensors").stat().st_size
        assert size < 2.1 * sum(p.size for p in model.parameters())


def test_pretrain_makes_only_the_named_models(here, capsys):
    assert cli.main(["pretrain", "words-tiny", "--steps", "1"]) == 0
    assert [p.name for p in (here / "minilora-results" / "pretrained").iterdir()] == ["words-tiny"]


# the process


def test_ctrl_c_before_the_training_says_stopped(monkeypatch, capsys):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    assert cli.main(["generate"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_ctrl_c_while_python_cleans_up_an_object_is_not_lost(monkeypatch, capsys):
    class Struck:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def run_generate(args):
        Struck()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pass

    monkeypatch.setattr("minilora.cli.writing.run_generate", run_generate)
    assert cli.main(["generate"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


# The same process that a person starts, except that it presses Ctrl-C itself, in its fifth step.
CTRL_C_IN_STEP_5 = """
import signal, sys
from minilora import cli
from minilora.training.loop import Training
step = Training.step
def step_with_ctrl_c(self, pool=None):
    if self.steps_done == 4:
        signal.raise_signal(signal.SIGINT)
    return step(self, pool)
Training.step = step_with_ctrl_c
sys.exit(cli.main())
"""


@pytest.mark.system
def test_after_ctrl_c_the_same_command_goes_on_to_the_same_end(text, here):
    argv = ["finetune", "--text", text, "--steps", "12", "--out"]
    stopped = start(*argv, "a", program=("-c", CTRL_C_IN_STEP_5), text=True)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == (
        "stopped: LoRA at step 5 of 12. All is saved; the same command goes on from here"
    )
    assert [path.name for path in (here / "a").iterdir()] == ["checkpoint.safetensors"]
    resumed = start(*argv, "a", text=True)
    assert resumed.returncode == 0 and "Saved" in resumed.stdout
    assert resumed.stderr.splitlines()[-1].startswith("step 12 of 12, loss: LoRA ")
    assert cli.main([*argv, "b"]) == 0  # without a pause
    files = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in (here / "a").iterdir()) == [*files, "training.json"]
    for file in files:
        assert (here / "a" / file).read_bytes() == (here / "b" / file).read_bytes()


def test_checkpoint_of_other_options_is_not_taken_for_ones_own(text, here, capsys, monkeypatch):
    step = ml.Training.step

    def step_with_ctrl_c(self, pool=None):
        signal.raise_signal(signal.SIGINT)
        return step(self, pool)

    argv = ["finetune", "--text", text, "--steps", "3", "--out", "a"]
    with monkeypatch.context() as patch:
        patch.setattr(ml.Training, "step", step_with_ctrl_c)
        assert cli.main(argv) == 130
    assert "stopped: LoRA at step 1 of 3" in capsys.readouterr().err
    line = error_of([*argv, "--seed", "1"], capsys)
    assert "is the checkpoint of another run (it differs in: seed" in line and "delete it" in line
    assert cli.main(argv) == 0


@pytest.mark.system
def test_real_comparison_of_ones_own_text_on_a_console_in_cp1252(text, here):
    done = start("--text", text, "--steps", "1", "--out", "x", env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode("cp1252")
    assert "new task" in out and " -> " in out and "18,432" in out and "Written to x" in out
    assert b"Traceback" not in done.stderr
    results = json.loads((here / "x" / "results.json").read_text("utf-8"))
    (entry,) = results["tasks"]
    lora = next(run for run in entry["runs"] if run["method"] == "lora")
    assert lora["old_detached"] == entry["base"]["old"]
    assert results["command"] == f"minilora compare --text {text} --steps 1 --out x"
    assert "→" in entry["about"]  # the file has what the console had not


@pytest.mark.system
def test_console_in_ascii_spells_what_it_lacks_instead_of_failing(text):
    done = start("finetune", "--text", text, "--steps", "1", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert re.search(rb"\d -> \d", done.stdout) and b"Saved" in done.stdout


@pytest.mark.system
@pytest.mark.parametrize(
    "argv", [["generate", "--tokens", "3"], ["pretrain", "words-tiny", "--steps", "1"]]
)
def test_reader_who_has_left_is_no_error(argv):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        done = start(*argv, stdout=closed, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Error" not in done.stderr


@pytest.mark.system
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("argv", ["params", "--help", "params --help"])
def test_standard_output_on_a_full_disk_is_one_sentence(argv):
    with open("/dev/full", "w") as full:
        done = start(*argv.split(), stdout=full, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"minilora: .*standard output.* full: free some space\n", done.stderr)


@pytest.mark.system
def test_a_closed_stdout_is_no_error():
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    done = start("-m", "minilora", "params", program=("-c", code), text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_params_draws_what_it_counts(tmp_path, capsys):
    assert cli.main(["params", "--out", str(tmp_path / "drawn")]) == 0
    assert (tmp_path / "drawn" / "params.png").stat().st_size > 10_000
    assert "params.png" in capsys.readouterr().out
