"""Claims about the suite of overlapping threads: a part of it holds, and it notices what threads
share by mistake."""

from types import SimpleNamespace

import overlapping

from minilora import tensor


def test_work_that_overlaps_in_threads_has_the_results_of_work_alone():
    ends = overlapping.SUITE.run(seed=1, trials=2)
    assert not overlapping.SUITE.faults(ends), ends


def test_a_no_grad_that_all_threads_share_is_noticed(monkeypatch):
    for job in overlapping.NAMES:
        overlapping.alone(job, 0)
    monkeypatch.setattr(tensor, "_mode", SimpleNamespace(recording=True, observer=None))
    assert any(overlapping.SUITE.faults(overlapping.SUITE.run(i, 1)) for i in range(10))
