"""Claims about the suites of determinism and of overlapping threads: a part of each holds, and each
notices what is wrong."""

from types import SimpleNamespace

import determinism
import overlapping
import pytest

from minilora import tensor


def test_work_that_overlaps_in_threads_has_the_results_of_work_alone():
    ends = overlapping.SUITE.run(seed=1, trials=2)
    assert not overlapping.SUITE.faults(ends), ends


def test_a_no_grad_that_all_threads_share_is_noticed(monkeypatch):
    for job in overlapping.NAMES:
        overlapping.alone(job, 0)
    monkeypatch.setattr(tensor, "_mode", SimpleNamespace(recording=True, observer=None))
    assert any(overlapping.SUITE.faults(overlapping.SUITE.run(i, 1)) for i in range(10))


def test_a_result_that_hangs_on_the_order_of_a_set_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text("print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))")
    monkeypatch.setattr(determinism, "HERE", tmp_path)
    monkeypatch.setattr(determinism, "plainly", determinism.plainly.__wrapped__)
    assert determinism.trial(0, 0)[0] == determinism.OTHER


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bits_whatever_else_the_machine_does():
    ends = determinism.SUITE.run(seed=1, trials=20)
    assert not determinism.SUITE.faults(ends), ends
