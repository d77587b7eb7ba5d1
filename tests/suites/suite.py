"""What the suites have in common: each tries one promise of README's many times, with seeds, and
counts how each trial ended.

    python tests/suites/damaged_files.py --trials 10000 --seed 0

A suite is a function that makes trial number i of a seed and says in a word or two how it ended;
the ends that keep the promise are known beforehand, and any other is a fault, printed with what
repeats it. A small part of every suite is a test (test_*_suite.py). A whole run with --write
leaves its counts in figures/trust/NAME.json, which README's table is made of.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import minilora
from minilora.cli.terminal.output import machine
from minilora.experiments.rows import save_json

sys.path.append(str(Path(__file__).parents[1]))  # a suite finds builders.py, as under pytest
TRUST = Path(__file__).parents[2] / "figures" / "trust"


@dataclass(frozen=True)
class Suite:
    """One promise. trial(seed, i) -> how it ended, and what repeats it ("" if its numbers do).
    kept: the ends that keep the promise. trials: how many a whole run makes."""

    name: str
    promise: str
    trial: Callable[[int, int], tuple[str, str]]
    kept: Collection[str]
    trials: int

    def run(self, seed: int, trials: int | None = None, quiet: bool = True) -> Counter[str]:
        """How often the trials ended in each way; a fault is printed as soon as it is found."""
        ends: Counter[str] = Counter()
        numbers = range(self.trials if trials is None else trials)
        for i in tqdm(numbers, self.name, unit="trial", disable=quiet or None, dynamic_ncols=True):
            end, how = self.trial(seed, i)
            ends[end] += 1
            if end not in self.kept:
                tqdm.write(f"{self.name}, seed {seed}, trial {i}: {end}. {how}", file=sys.stderr)
        return ends

    def faults(self, ends: Counter[str]) -> int:
        """How many of these ends break the promise."""
        return sum(n for end, n in ends.items() if end not in self.kept)


def main(suite: Suite) -> int:
    """The command line of a suite: 0 if the promise held in all trials, else 1."""
    parser = argparse.ArgumentParser(description=suite.promise)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=suite.trials, help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help=f"the counts to {TRUST.name}/")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        ends = suite.run(args.seed, args.trials, quiet=False)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    faults = suite.faults(ends)
    for end, n in ends.most_common():
        print(f"{n:8,}  {end}{'' if end in suite.kept else '  <- a fault'}")
    print(f"{suite.promise} {args.trials:,} trials, {faults} faults.")
    if args.write:
        TRUST.mkdir(parents=True, exist_ok=True)
        save_json(
            {
                "promise": suite.promise,
                "command": f"python tests/suites/{Path(sys.argv[0]).name}",
                "trials": args.trials,
                "seed": args.seed,
                "faults": faults,
                "ends": dict(ends.most_common()),
                "seconds": round(time.monotonic() - began),
                "date": f"{datetime.date.today()}",
                "version": minilora.__version__,
                "machine": machine(),
            },
            TRUST / f"{suite.name}.json",
        )
    return 1 if faults else 0


def shipped() -> list[dict]:
    """The counts of all suites' whole runs."""
    return [json.loads(file.read_text("utf-8")) for file in sorted(TRUST.glob("*.json"))]
