"""Claims about what lesson 03 says in words: its studies, its live runs as committed, its bill."""

import re

import numpy as np
from test_lessons import committed, text_of

from minilora.experiments.rows import select
from minilora.studies import shipped_rows

BOOK = committed("03_full_fine_tuning")
TEXT = " ".join(text_of(BOOK).split())
SHOWN = "\n".join(
    out["text"] for cell in BOOK.cells for out in cell.get("outputs", []) if "text" in out
)


def numbers(line: str) -> list[float]:
    """Those in the first line of the outputs that begins so, after this beginning."""
    found = re.search(rf"^{re.escape(line)}(.*)$", SHOWN, re.MULTILINE)
    assert found, line
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", found[1])]


def means(rows, key, x, **same):
    values = sorted({row[x] for row in select(rows, **same)})
    return {v: np.mean([row[key] for row in select(rows, **same, **{x: v})]) for v in values}


def test_the_ledger_is_exact_and_both_slopes_are_nearly_the_same():
    assert "weights, gradients and moments stand as 4 : 4 : 8 bytes" in TEXT
    (weights, _), (gradients, few), (moments, less) = map(
        numbers, ("weights ", "gradients ", "moments ")
    )
    assert weights == gradients == moments / 2 and less == 2 * few
    assert "Two lines of nearly the same slope" in TEXT
    full, lora = numbers("MB for one more text of 64 characters: ")[-2:]
    assert 0.95 < lora / full < 1


def test_sgd_at_its_own_rate_is_as_good_within_a_few_hundredths():
    assert "as good here within a few hundredths of a nat" in TEXT
    adamw, sgd = numbers("AdamW     0.001 "), numbers("SGD           1 ")
    assert abs(adamw[0] - sgd[0]) < 0.03
    assert "At AdamW's rate SGD hardly learns" in TEXT
    assert numbers("base ")[0] - numbers("SGD       0.001 ")[0] < 0.1
    assert "Here every step was clipped, in every run" in TEXT
    assert len(re.findall(r"100 of 100 steps clipped", SHOWN)) == 4


def test_the_gentle_run_forgets_least_and_the_best_rate_for_the_new_task_most():
    rows = shipped_rows("forgetting_frontier")
    assert "Gentle full fine-tuning, at 0.0003, lies lowest" in TEXT
    old = {(row["method"], row["lr"]): [] for row in rows}
    for row in rows:
        old[row["method"], row["lr"]].append(row["old"])
    assert min(old, key=lambda key: np.mean(old[key])) == ("full", 3e-4)
    assert max(old, key=lambda key: np.mean(old[key])) == ("full", 2e-3)
    gentle = np.mean([r["curve"] for r in select(rows, method="full", lr=3e-4)], axis=0)
    for lr in (2e-3, 1e-2):
        for _, new, lost in np.mean([r["curve"] for r in select(rows, method="lora", lr=lr)], 0)[
            1:
        ]:
            if gentle[-1, 1] < new < gentle[1, 1]:
                assert lost > np.interp(new, gentle[:0:-1, 1], gentle[:0:-1, 2])


def test_the_best_rates_are_a_factor_of_five_apart():
    rows = select(shipped_rows("learning_rate_sweep"), task="code")
    best = {}
    for method in ("full", "lora"):
        found = means(rows, "val", "lr", method=method)
        best[method] = min(found, key=lambda lr: found[lr])
    assert "LoRA's best rate is five times full fine-tuning's here" in TEXT
    assert best["lora"] / best["full"] == 5 and best["full"] == 2e-3


def test_with_little_text_fewer_trained_numbers_do_less_harm():
    rows = shipped_rows("small_data")
    assert "with 600,000 it is the other way round" in TEXT
    little, much = (
        [
            np.mean([row["test"] for row in select(rows, method=m, r=r, characters=n)])
            for m, r in (("full", None), ("lora", 4), ("lora", 1))
        ]
        for n in (5_000, 600_000)
    )
    assert little == sorted(little, reverse=True) and much == sorted(much)


def test_lora_drops_about_a_third_of_a_step_and_nothing_of_the_forward_pass():
    assert "about a third of a step at best" in TEXT
    share, forward = numbers("LoRA's step, of full's: ")[:2]
    assert 66 <= share < 70 and 100 < forward < 102
