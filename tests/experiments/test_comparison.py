"""Claims about the comparison: what is measured is what happened, and both methods start alike.

The comparisons are real ones, of few steps, measured on few examples, and each is run once. What a
comparison saved is loaded again and must be, number for number, the model that was measured.
"""

import hashlib
import io
import json
import signal
import zlib
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import minilora as ml
from minilora.cli.terminal.tables import print_comparison
from minilora.experiments.comparison import DEFAULT_METHODS, compare, folder_name, forget
from minilora.experiments.tasks import BASE_MODELS, load_task
from minilora.hub.places import ASSETS
from minilora.lora import lora_layers
from minilora.methods.registry import METHODS
from minilora.nn import Linear
from minilora.plots.comparisons import compare_figure
from minilora.system.errors import UsageError
from minilora.training import loop
from minilora.training.loop import TrainingInterrupted

ROW = set(
    "task metric method seed lr steps r s trainable total diverged val test old old_detached "
    "optimizer_bytes disk_bytes peak_memory_bytes seconds_per_step losses curve".split()
)
VARYING = ("seconds_per_step", "peak_memory_bytes")  # what the machine decides, not the seed


def quick(name, **changes):
    """A task that is measured on few examples."""
    return replace(load_task(name), examples=8 if name == "code" else 40, **changes)


def drawing(task, batch):
    """The task with other batches."""
    known = ("quality", "metric", "length", "checksum")
    data = SimpleNamespace(batch=batch, **{name: getattr(task.data, name) for name in known})
    return replace(task, data=data)


def on_disk(base):
    files = [ASSETS / base / name for name in ("config.json", "model.safetensors")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def comparison(name, steps, seeds, folder):
    """A finished comparison, and every batch that was drawn for it."""
    task, drawn = quick(name), []
    before = on_disk(task.base)

    def batch(rng):
        ids, targets = task.batch(rng)
        drawn.append(zlib.crc32(ids.tobytes() + targets.tobytes()))
        return ids, targets

    entry = compare(drawing(task, batch), folder, seeds=seeds, steps=steps, quiet=True)
    return SimpleNamespace(
        task=task, out=folder, entry=entry, drawn=drawn, steps=steps, seeds=seeds, before=before
    )


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return comparison("code", 8, [0, 1], tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def reverse(tmp_path_factory):
    return comparison("reverse", 20, [3], tmp_path_factory.mktemp("reverse"))


@pytest.fixture(params=["code", "reverse"])
def done(request):
    return request.getfixturevalue(request.param)


def of(done, method):
    return next(run for run in done.entry["runs"] if run["method"] == method)


def repeatable(runs):
    return [{key: value for key, value in run.items() if key not in VARYING} for run in runs]


def size_of(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def test_entry_has_the_keys_of_results_json(done):
    entry, task = done.entry, done.task
    assert set(entry) == {"task", "about", "metric", "base", "runs", "samples"}
    assert set(entry["base"]) == {"test", "old", "total"}
    assert [(run["method"], run["seed"]) for run in entry["runs"]] == [
        (method, seed) for seed in done.seeds for method in DEFAULT_METHODS
    ]
    for run in entry["runs"]:
        assert set(run) == ROW
        assert run["steps"] == done.steps and run["seconds_per_step"] > 0
        assert (run["task"], run["metric"]) == (entry["task"], entry["metric"])
        assert run["val"] == run["curve"][-1][1] and not run["diverged"]
    metric = "nats" if task.name == "code" else "exact"
    assert (entry["task"], entry["about"], entry["metric"]) == (task.name, task.about, metric)


def test_entry_is_json_without_nan(done):
    again = json.loads(json.dumps(done.entry, allow_nan=False))
    assert again["base"] == done.entry["base"] and again["samples"] == done.entry["samples"]
    assert [run["losses"] for run in again["runs"]] == [r["losses"] for r in done.entry["runs"]]


def test_base_is_measured_before_training(done):
    base = ml.load_model(done.task.base)
    measured = {"test": done.task.test(base), "old": done.task.old(base)}
    assert done.entry["base"] == measured | {"total": sum(p.size for p in base.parameters())}


def test_detached_adapter_is_exactly_the_base_again(done):
    for run in done.entry["runs"]:
        if run["method"] == "lora":
            assert run["old_detached"] == done.entry["base"]["old"]
        else:
            assert run["old_detached"] is None
    if done.task.name == "code":
        assert of(done, "lora")["old"] != done.entry["base"]["old"]  # not for want of change


@pytest.mark.parametrize(("name", "r", "by_hand"), [("code", 4, 18_432), ("reverse", 2, 9_216)])
def test_lora_trains_r_times_d_in_plus_d_out_of_every_linear(name, r, by_hand, request):
    done = request.getfixturevalue(name)
    base = ml.load_model(done.task.base)
    shapes = [m.weight.shape for _, m in base.named_modules() if isinstance(m, Linear)]
    total = sum(p.size for p in base.parameters())
    lora, full, scratch = (of(done, method) for method in ("lora", "full", "scratch"))
    assert lora["trainable"] == sum(r * (n + m) for n, m in shapes) == by_hand
    assert full["trainable"] == scratch["trainable"] == total
    assert {run["total"] for run in done.entry["runs"]} == {total}
    assert (lora["r"], full["r"], scratch["r"]) == (r, None, None)


def test_optimizer_keeps_two_float32_for_each_trainable_number(done):
    for run in done.entry["runs"]:
        assert run["optimizer_bytes"] == 2 * 4 * run["trainable"]


def test_disk_bytes_are_those_of_the_files_that_were_saved(done):
    name = done.task.name
    assert of(done, "full")["disk_bytes"] == size_of(done.out / f"{name}-full")
    assert of(done, "lora")["disk_bytes"] == size_of(done.out / f"{name}-lora")
    assert of(done, "scratch")["disk_bytes"] == of(done, "full")["disk_bytes"]


def test_adapter_is_far_smaller_than_the_model(done):
    assert of(done, "lora")["disk_bytes"] < of(done, "full")["disk_bytes"] / 10


def test_step_of_lora_needs_less_memory_at_its_peak(done):
    lora, full = of(done, "lora"), of(done, "full")
    assert lora["peak_memory_bytes"] < full["peak_memory_bytes"]
    for run in (lora, full):  # a gradient and two moments, at least, and activations above them
        assert run["peak_memory_bytes"] > 12 * run["trainable"]


def test_all_methods_see_the_same_batches(done):
    counts = Counter(done.drawn)
    assert len(counts) == done.steps * len(done.seeds)
    assert all(count % len(DEFAULT_METHODS) == 0 for count in counts.values())
    steps = done.drawn[-len(DEFAULT_METHODS) * done.steps :]  # of the last seed, in turn
    assert all(len(set(steps[i : i + 3])) == 1 for i in range(0, len(steps), 3))


def test_full_and_lora_start_from_the_same_base_and_part_then(done):
    full, lora, scratch = (of(done, method) for method in DEFAULT_METHODS)
    assert full["losses"][0] == lora["losses"][0] != scratch["losses"][0]
    assert full["curve"][0] == lora["curve"][0]
    assert full["losses"][1:] != lora["losses"][1:]


def test_losses_and_evaluations_go_from_the_first_step_to_the_last(done):
    for run in done.entry["runs"]:
        assert len(run["losses"]) == done.steps
        steps = [step for step, _ in run["curve"]]
        assert steps[0] == 0 and steps[-1] == done.steps and steps == sorted(set(steps))


def test_each_method_learns(code):
    for run in code.entry["runs"]:  # on fixed windows: the batches' own losses go up and down
        assert run["curve"][-1][1] < run["curve"][0][1]


def test_seeds_differ_and_the_first_one_alone_is_saved(code):
    first, second = (
        [run for run in code.entry["runs"] if run["seed"] == seed] for seed in code.seeds
    )
    assert all(a["losses"] != b["losses"] for a, b in zip(first, second, strict=True))
    saved = ml.load_model(code.out / "code-full")
    measured = pytest.approx(code.task.test(saved), rel=1e-6)  # where arrays lie can round a sum
    assert first[0]["test"] == measured != second[0]["test"]


def test_saved_adapter_on_the_base_is_the_model_that_was_measured(done):
    model = ml.load_model(done.task.base)
    ml.load_adapter(model, done.out / f"{done.task.name}-lora")
    run = of(done, "lora")
    assert done.task.test(model) == pytest.approx(run["test"], rel=1e-6)
    assert done.task.old(model) == pytest.approx(run["old"], rel=1e-6)
    assert done.task.val(model) == pytest.approx(run["curve"][-1][1], rel=1e-6)


def test_saved_full_model_is_the_model_that_was_measured(done):
    model, run = ml.load_model(done.out / f"{done.task.name}-full"), of(done, "full")
    assert done.task.test(model) == pytest.approx(run["test"], rel=1e-6)
    assert done.task.old(model) == pytest.approx(run["old"], rel=1e-6)
    assert done.task.val(model) == pytest.approx(run["curve"][-1][1], rel=1e-6)


def test_base_on_disk_is_byte_identical_afterwards(done):
    assert on_disk(done.task.base) == done.before


def test_every_method_writes_after_every_prompt(done):
    written = done.entry["samples"]
    assert tuple(written) == done.task.prompts
    for texts in written.values():
        assert list(texts) == ["base", *DEFAULT_METHODS]
        for text in texts.values():
            if done.task.name == "code":
                assert len(text) == 160
            else:
                assert "\n" not in text and len(text) <= 20
    assert len({tuple(texts.values()) for texts in written.values()}) == len(written)


def saved_models(done):
    adapted = ml.load_model(done.task.base)
    ml.load_adapter(adapted, done.out / f"{done.task.name}-lora")
    return {
        "base": ml.load_model(done.task.base),
        "full": ml.load_model(done.out / f"{done.task.name}-full"),
        "lora": adapted,
    }


def test_text_samples_are_what_the_saved_models_write_at_temperature_07(code):
    for method, model in saved_models(code).items():
        rng = np.random.default_rng(code.seeds[0])
        ids = ml.generate(model, ml.encode("def ")[None], 160, temperature=0.7, rng=rng)
        assert code.entry["samples"]["def "][method] == ml.decode(ids[0, 4:])


def test_answers_are_the_saved_models_greedy_ones_up_to_their_newline(reverse):
    for method, model in saved_models(reverse).items():
        for prompt, texts in reverse.entry["samples"].items():
            ids = ml.generate(model, ml.encode(prompt)[None], 20, temperature=0)
            assert texts[method] == ml.decode(ids[0])[len(prompt) :].split("\n")[0]


def test_same_seed_gives_the_same_runs_again_alone_or_among_others(code, tmp_path):
    again = compare(code.task, tmp_path, seeds=[1], steps=code.steps, quiet=True)
    assert repeatable(again["runs"]) == repeatable(code.entry["runs"][3:])


def test_same_runs_whatever_the_threads(code, tmp_path, monkeypatch):
    asked = []

    def run(trainings, threads, quiet, say):
        asked.append(threads)
        loop.run(trainings, threads, quiet, say)

    monkeypatch.setattr("minilora.experiments.comparison.run", run)
    for threads in (1, 2):
        folder = tmp_path / str(threads)
        entry = compare(code.task, folder, steps=code.steps, threads=threads, quiet=True)
        assert repeatable(entry["runs"]) == repeatable(code.entry["runs"][:3])
    assert asked == [1, 2]


def test_interrupted_comparison_goes_on_to_the_same_end(code, tmp_path):
    drawn = 0

    def batch_with_ctrl_c(rng):
        nonlocal drawn
        drawn += 1
        if drawn == 20:  # of 6 for the fingerprints and the memory, and 24 for the steps
            signal.raise_signal(signal.SIGINT)
        return code.task.batch(rng)

    checkpoints = tmp_path / "checkpoints"
    task = drawing(code.task, batch_with_ctrl_c)
    with pytest.raises(TrainingInterrupted, match="full fine-tuning at step 5 of 8.*goes on"):
        compare(task, tmp_path, steps=code.steps, quiet=True)
    assert len(list(checkpoints.iterdir())) == 3 and not (tmp_path / "code-lora").exists()
    drawn = 20
    entry = compare(task, tmp_path, steps=code.steps, quiet=True)
    assert drawn - 20 == 6 + 3 * (code.steps - 5)  # what was done is not done again
    assert repeatable(entry["runs"]) == repeatable(code.entry["runs"][:3])
    assert entry["samples"] == code.entry["samples"] and entry["base"] == code.entry["base"]
    drawn = 20
    again = compare(task, tmp_path, steps=code.steps, quiet=True)  # it was finished, not forgotten
    assert drawn - 20 == 6
    for first, second in zip(entry["runs"], again["runs"], strict=True):
        peaks = [run.pop("peak_memory_bytes") for run in (first, second)]
        assert first == second  # also the seconds, which are the checkpoint's
        assert peaks[0] == pytest.approx(peaks[1], rel=0.001)  # Python's own objects vary
    forget(task, tmp_path)
    assert not checkpoints.exists()


def test_checkpoints_go_whatever_the_name_of_the_text_and_no_others(reverse, tmp_path):
    named = replace(reverse.task, name="[a] *.txt", prompts=())
    for task in (named, replace(named, name="a .txt")):
        compare(task, tmp_path, steps=1, quiet=True)
    forget(named, tmp_path)
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert len(left) == 3 and all(name.startswith("a .txt-") for name in left)
    assert (tmp_path / "[a] *-lora" / "adapter_model.safetensors").is_file()


def test_other_settings_do_not_meet_the_checkpoints_of_an_interrupted_comparison(reverse, tmp_path):
    drawn = 0

    def batch_with_ctrl_c(rng):
        nonlocal drawn
        drawn += 1
        if drawn == 8:  # in the first of the five steps
            signal.raise_signal(signal.SIGINT)
        return reverse.task.batch(rng)

    task = replace(drawing(reverse.task, batch_with_ctrl_c), prompts=())
    with pytest.raises(TrainingInterrupted):
        compare(task, tmp_path, steps=5, quiet=True)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
    entry = compare(task, tmp_path, steps=2, quiet=True)
    assert {run["steps"] for run in entry["runs"]} == {2}


def test_seed_draws_the_adapters_first_numbers(reverse, tmp_path):
    path = "layers.0.attn.o_proj"  # B is zero, so that the first step does not change A
    for seed in (1, 2):
        task, out = replace(reverse.task, prompts=()), tmp_path / str(seed)
        compare(task, out, seeds=[seed], steps=1, quiet=True)
        saved, fresh = ml.load_model("words-tiny"), ml.load_model("words-tiny")
        ml.load_adapter(saved, out / "reverse-lora")
        ml.add_adapter(fresh, task.lora, rng=np.random.default_rng((seed, 0)))
        A, expected = (lora_layers(model)[path].adapters["default"].A for model in (saved, fresh))
        np.testing.assert_array_equal(A.data, expected.data)


def test_settings_replace_the_recipe(reverse, tmp_path):
    lora = dict(r=1, lora_alpha=3, target_modules=["q_proj", "v_proj"])
    rates, said = {"full": 2e-4, "lora": 5e-4}, []
    options = dict(seeds=[7], rates=rates, steps=1, quiet=True, say=said.append)
    entry = compare(reverse.task, tmp_path, **lora, **options)
    full, tuned, scratch = entry["runs"]
    assert (full["lr"], tuned["lr"]) == (2e-4, 5e-4)
    assert tuned["trainable"] == 4 * 2 * (64 + 64)  # layers, matrices, r = 1
    assert scratch["lr"] == BASE_MODELS["words-tiny"].training.lr
    saved = ml.load_model("words-tiny")
    ml.load_adapter(saved, tmp_path / "reverse-lora")
    assert {layer.adapters["default"].s for layer in lora_layers(saved).values()} == {3.0}
    assert any("seed 7" in text for text in said)


def test_recipe_has_its_own_rate_for_each_method(code):
    assert {run["method"]: run["lr"] for run in code.entry["runs"]} == {
        "full": code.task.lr["full"],
        "lora": code.task.lr["lora"],
        "scratch": BASE_MODELS["docs-tiny"].training.lr,
    }


CASES = [
    ({"methods": "full"}, "methods must be a list of different ones, got 'full'"),
    ({"methods": []}, "methods must be a list of different ones"),
    ({"methods": ["lora", "lora"]}, "methods must be a list of different ones"),
    ({"methods": ["full", "lore"]}, "there is no method 'lore'"),
    ({"seeds": []}, "seeds must be a list of different ones"),
    ({"seeds": [0, 0]}, "seeds must be a list of different ones"),
    ({"seeds": [0.5]}, "seed must be .* got 0.5"),
    ({"seeds": [-1]}, "seed must be .* got -1"),
    ({"rates": {"lora": 0.0}}, "lr must be"),
    ({"rates": {"full": float("nan")}}, "lr must be"),
    ({"rates": {"dora": 1e-2}}, "there is a rate for dora, which is not among the methods"),
    ({"steps": 0}, "steps must be .* got 0"),
    ({"steps": 2.5}, "steps must be .* got 2.5"),
    ({"threads": 0}, "threads must be"),
    ({"r": 0}, "rank must be at least 1, got 0|r must be"),
    ({"methods": ["full", "scratch"], "r": 3}, "mean nothing to full and scratch"),
    ({"methods": ["bitfit"], "target_modules": ["q_proj"]}, "mean nothing to bitfit"),
]


@pytest.mark.parametrize(("change", "sentence"), CASES)
def test_what_cannot_be_meant_or_has_no_effect_is_refused(change, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        compare(quick("reverse"), tmp_path, **{"steps": 1, "quiet": True} | change)
    assert not list(tmp_path.glob("reverse*"))


def test_seeds_and_methods_may_be_any_iterables_and_the_folder_a_str(tmp_path):
    task = quick("reverse", prompts=())
    methods, seeds = (name for name in ("bitfit", "lora")), iter([2])
    entry = compare(task, str(tmp_path), methods=methods, seeds=seeds, steps=1, quiet=True)
    assert [(run["method"], run["seed"]) for run in entry["runs"]] == [("bitfit", 2), ("lora", 2)]
    forget(task, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["reverse-lora"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/notes.txt", "notes-lora"),
        ("my v2.0.md", "my v2.0-lora"),
        ("sort", "sort-text-lora"),
    ],
)
def test_what_is_saved_is_named_by_the_texts_stem_and_the_method(path, name, tmp_path):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("It was the best of times, it was the worst of times. " * 60, "utf-8")
    assert folder_name(load_task(file), "lora") == name
    assert folder_name(load_task("sort"), "lora") == "sort-lora"


FOUR = ("full", "bitfit", "dora", "prefix")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    task, out = quick("code"), tmp_path_factory.mktemp("four")
    entry = compare(task, out, methods=FOUR, steps=2, quiet=True)
    return SimpleNamespace(task=task, out=out, entry=entry)


def test_methods_are_those_asked_for_in_their_order(four):
    assert [run["method"] for run in four.entry["runs"]] == list(FOUR)
    assert all(set(run) == ROW for run in four.entry["runs"])
    assert {run["method"]: run["lr"] for run in four.entry["runs"]} == {
        method: four.task.lr[method] for method in FOUR
    }
    assert all(list(texts) == ["base", *FOUR] for texts in four.entry["samples"].values())
    assert json.loads(json.dumps(four.entry, allow_nan=False))


def test_methods_train_as_many_numbers_as_their_formulas_say(four):
    C, L, r = 128, 2, 4
    linears = 4 * (C + C) + (C + 4 * C) + (4 * C + C)  # d_in + d_out of a block
    n = round(r * linears / (2 * C))  # as many keys and values as LoRA has numbers
    total = four.entry["base"]["total"]
    trained = {run["method"]: run["trainable"] for run in four.entry["runs"]}
    assert trained == {
        "full": total,
        "bitfit": L * 11 * C + C,
        "dora": L * (r * linears + 9 * C),
        "prefix": L * n * 2 * C,
    }
    for run in four.entry["runs"]:
        assert run["total"] == total
        assert run["optimizer_bytes"] == 8 * run["trainable"]


def test_of_other_methods_the_trained_numbers_alone_are_kept_on_disk(four):
    for method in ("bitfit", "prefix"):
        run = of(four, method)
        numbers = 4 * run["trainable"]  # float32, and a header with their names
        assert numbers < run["disk_bytes"] < numbers + 3_000
    assert of(four, "dora")["disk_bytes"] < of(four, "full")["disk_bytes"] / 10
    saved = {path.name for path in four.out.iterdir()}
    assert saved == {"checkpoints", "code-full", "code-dora"}


def test_all_methods_but_a_prefix_start_at_the_base(four):
    losses = {run["method"]: run["losses"] for run in four.entry["runs"]}
    assert losses["full"][0] == losses["bitfit"][0] == losses["dora"][0] != losses["prefix"][0]
    assert len({run[1] for run in losses.values()}) == 4
    old = four.entry["base"]["old"]
    assert [run["old_detached"] for run in four.entry["runs"]] == [None, None, old, None]


def test_comparison_of_other_methods_is_printed_and_drawn(four):
    console = Console(file=io.StringIO(), width=100)
    print_comparison(four.entry, console)
    text = console.file.getvalue()
    for run in four.entry["runs"]:
        assert METHODS[run["method"]].label in text and f"{run['trainable']:,}" in text
    assert [ax.get_title("left").split(":")[0] for ax in compare_figure(four.entry).axes] == [
        "New task",
        "Old task, what the base could do",
    ]


def test_a_single_method_is_a_comparison_with_the_base(tmp_path):
    task = quick("reverse", prompts=())
    entry = compare(task, tmp_path, methods=("bitfit",), steps=2, quiet=True)
    (run,) = entry["runs"]
    assert run["trainable"] == 4 * 11 * 64 + 64
    console = Console(file=io.StringIO(), width=100)
    print_comparison(entry | {"samples": {"<ab>": {"base": "ab", "bitfit": "ba"}}}, console)
    assert "BitFit" in console.file.getvalue()
    assert len(compare_figure(entry).axes) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}


def test_lora_plus_is_compared_at_its_ratio_and_the_others_at_one(reverse, tmp_path, monkeypatch):
    seen = {}

    def run(trainings, *options):
        seen.update({t.name: t.config.loraplus_lr_ratio for t in trainings})
        raise InterruptedError

    monkeypatch.setattr("minilora.experiments.comparison.run", run)
    methods = ("lora", "lora+", "full", "scratch")
    with pytest.raises(InterruptedError):
        compare(reverse.task, tmp_path, methods=methods, steps=1)
    assert seen == {"LoRA": 1, "LoRA+": 16, "full fine-tuning": 1, "from scratch": 1}
