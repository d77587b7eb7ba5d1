"""How fast is minilora at a real model's size, beside transformers with PEFT on PyTorch?

    python tests/bench/real.py [--rounds 5] [--models smollm2 gpt2] [--out figures]

Each job (real_jobs.py) runs in a process for each of the two, in turn: one thread, CPU time, the
median of the rounds' ratios. The models have the shapes of SmolLM2-135M and GPT-2 and random
weights, so that nothing is downloaded. Before anything is timed, the first loss of every job, or
the tokens it writes, are compared. Writes real_speed.json, real_speed.md and real_speed.png.
"""

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
from bench import Worker, cpu_name, interleave
from matplotlib.figure import Figure
from real_jobs import NEW, PROMPT, T
from tqdm import tqdm

import minilora
from minilora.plots import save_figure, style
from minilora.system.files import make_folder, write_atomically

ENGINES = ("minilora", "transformers")
MODELS = {"smollm2": "SmolLM2-135M", "gpt2": "GPT-2 124M"}
LABELS = {
    "lora 1": "LoRA step, batch 1",
    "lora 4": "LoRA step, batch 4",
    "answers 4": "LoRA step, batch 4, ¼ of the targets",
    "full 1": "full step, batch 1",
    "full 4": "full step, batch 4",
    "generate 1": "a text, batch 1",
    "generate 8": "a text, batch 8",
}
GOALS = {job: 0.9 for job in LABELS} | {"generate 1": 0.6, "generate 8": 0.95}


def make_model(name: str, folder: Path) -> None:
    """Save a model with random weights as transformers does."""
    import transformers

    if name == "gpt2":
        no_dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**no_dropout))
    else:
        config = transformers.LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            rope_theta=100000.0,
            tie_word_embeddings=True,
        )
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)


def measure(job: str, folder: Path, rounds: int) -> dict:
    """Of one job: ratios of CPU time, minilora's over transformers'; seconds and peak MiB of each.

    Raises AssertionError where the two do not compute the same.
    """
    workers = {engine: Worker(engine, job, str(folder)) for engine in ENGINES}
    first = [np.array(worker.first) for worker in workers.values()]
    np.testing.assert_allclose(*first, rtol=1e-4, err_msg=job)
    found = interleave(workers, rounds, times=1)
    ours, theirs = (found[engine] for engine in ENGINES)
    ratios = [a["cpu"] / b["cpu"] for a, b in zip(ours, theirs, strict=True)]
    return {
        "median": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "goal": GOALS[job],
        "seconds": {engine: median(run["cpu"] for run in found[engine]) for engine in ENGINES},
        "mib": {engine: found[engine][-1]["mib"] for engine in ENGINES},
    }


def table(results: dict) -> str:
    models = list(results["rows"])
    lines = [
        "# Speed at a real model's size",
        "",
        "CPU time of minilora over that of transformers with PEFT on PyTorch, one thread, the "
        "median of the rounds (lowest to highest); then the peak memory of each process, libraries "
        f"and loading included. A step reads {T} tokens in each row; a text is {NEW} tokens after "
        f"a prompt of {PROMPT}. {results['date']}, {results['machine']}; to measure again: "
        f"`{results['command']}`.",
        "",
        "| below 1: minilora is faster | "
        + " | ".join(f"{MODELS[m]} | MiB" for m in models)
        + " |",
        "|---|" + "---|---|" * len(models),
    ]
    for job, label in LABELS.items():
        cells = []
        for model in models:
            row = results["rows"][model].get(job)
            if not row:
                cells += ["–", "–"]
                continue
            missed = "" if row["median"] <= row["goal"] else " **missed**"
            span = f"{row['low']:.2f} to {row['high']:.2f}"
            cells.append(f"{row['median']:.2f} ({span}), goal {row['goal']:.2f}{missed}")
            cells.append(" / ".join(f"{row['mib'][engine]:,.0f}" for engine in ENGINES))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(results: dict) -> Figure:
    with style():
        models, names = list(results["rows"]), list(LABELS.values())
        fig = Figure(figsize=(8, 1.2 + 2.4 * len(models)), layout="constrained")
        for ax, model in zip(fig.subplots(len(models), squeeze=False)[:, 0], models, strict=True):
            for i, job in enumerate(LABELS):
                if row := results["rows"][model].get(job):
                    ax.barh(i, row["median"], 0.7, color=matplotlib.colormaps["Blues"](0.6))
                    ax.text(0.02, i, f"{row['median']:.2f}", color="white", va="center")
                    ax.plot([row["goal"]] * 2, [i - 0.45, i + 0.45], "k", lw=1.5)
            ax.axvline(1, color="0.5", lw=1, ls=":")
            ax.set_yticks(range(len(names)), names)
            ax.invert_yaxis()
            ax.grid(False)
            ax.set_xlim(0, 1.1)
            ax.set_title(f"CPU time in the shape of {MODELS[model]}")
        ax.set_xlabel("minilora's over transformers' with PEFT (black line: the goal)")
    return fig


def save(results: dict, folder: Path) -> None:
    """Also while jobs are still to come: all of them take long."""
    make_folder(folder)
    texts = {"json": json.dumps(results, indent=1) + "\n", "md": table(results)}
    for suffix, text in texts.items():
        write_atomically(
            folder / f"real_speed.{suffix}", partial(Path.write_bytes, data=text.encode())
        )
    save_figure(figure(results), folder / "real_speed.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("figures"))
    args = parser.parse_args()
    results = {
        "date": date.today().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, PyTorch {version('torch')}, "
        f"transformers {version('transformers')}, PEFT {version('peft')}",
        "minilora": minilora.__version__,
        "command": f"python tests/bench/real.py --rounds {args.rounds} --models "
        + " ".join(args.models),
        "rows": {},
    }
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            make_model(name, Path(folder))
            results["rows"][name] = {}
            for job in tqdm(LABELS, desc=name):
                results["rows"][name][job] = measure(job, Path(folder), args.rounds)
                save(results, args.out)
    print(table(results))


if __name__ == "__main__":
    main()
