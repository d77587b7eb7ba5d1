"""Every command once, in the folder it is started in, each as quick as it can be: `python` of this.

What it writes is what the commands write; last, on stderr, a line of JSON: each command line and
its exit status. Tests start it in odd environments. LIGHT=1 leaves out what trains or draws.
"""

import io
import json
import os
import shlex
import shutil
import sys
import traceback
from pathlib import Path

TEXT = os.fsdecode("Größe und Łódź.txt".encode())  # where the locale is C, as it is handed on
OUT = os.fsdecode("mit Leerzeichen/ergebnisse é".encode())
LIGHT = [
    "--version",
    "--help",
    "params",
    "params 4096x4096 --rank 8",
    "doctor",
    "generate --tokens 5",
    "lessons",
    f"lessons --copy '{OUT}/lessons'",
    f"check '{OUT}/lessons/05_counting_parameters.ipynb'",
    "cards --topic memory",
    f"cards --json '{OUT}/cards.json'",
    f"exam --seed 3 --questions 3 --out '{OUT}/exam.html'",
    f"quiz --questions 1 --seed 2 --progress '{OUT}/progress.json'",
]
HEAVY = [
    f"compare --text '{TEXT}' --steps 1 --out '{OUT}'",
    f"finetune --text '{TEXT}' --steps 1 --out '{OUT}/adapter'",
    f"generate --adapter '{OUT}/adapter' --tokens 5",
    f"inspect '{OUT}/adapter' --figure '{OUT}/adapter.png'",
    f"spectrum --adapter '{OUT}/adapter'",
    f"sweep --text '{TEXT}' --ranks 1 --steps 1 --jobs 1",
    f"profile --steps 1 --batch 2 --out '{OUT}'",
    f"pretrain words-tiny --steps 1 --out '{OUT}/pretrained'",
    f"grade '{OUT}/lessons' --csv '{OUT}/points.csv'",
]


def main() -> int:
    from minilora import cli

    shorten_measurements()
    Path(OUT).mkdir(parents=True, exist_ok=True)
    Path(TEXT).write_text("It was the best of times, it was the worst of times. " * 60, "utf-8")
    statuses = {}
    for line in LIGHT + ([] if os.environ.get("LIGHT") else HEAVY):
        sys.stdin = io.StringIO("a\n" * 9)
        try:
            status = cli.main(shlex.split(line))
        except SystemExit as stopped:
            status = stopped.code or 0
        except BaseException:
            traceback.print_exc()
            status = "raised"
        statuses[line] = status
    shutil.rmtree(f"{OUT}/lessons")
    print(json.dumps(statuses), file=sys.stderr)
    return 0


def shorten_measurements() -> None:
    """Texts and words are measured on 8 windows, samples have 8 symbols."""
    from minilora.experiments import comparison, tasks

    text_loss, exact_match, write = tasks.text_loss, tasks.exact_match, comparison.write
    tasks.text_loss = lambda model, tokens, n: text_loss(model, tokens, 8)
    tasks.exact_match = lambda model, x, y: exact_match(model, x[:8], y[:8])
    comparison.write = lambda model, prompt, n, **o: write(model, prompt, 8, **o)
    comparison.step_memory = lambda training: 2**20


if __name__ == "__main__":
    sys.exit(main())
