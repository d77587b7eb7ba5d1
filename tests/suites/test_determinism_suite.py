"""Claims about the suite of determinism: a part of it holds, and it notices a result that hangs on
chance."""

import determinism
import pytest


def test_a_result_that_hangs_on_the_order_of_a_set_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text("print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))")
    monkeypatch.setattr(determinism, "HERE", tmp_path)
    monkeypatch.setattr(determinism, "plainly", determinism.plainly.__wrapped__)
    assert determinism.trial(0, 0)[0] == determinism.OTHER


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bits_whatever_else_the_machine_does():
    pytest.importorskip("joblib")
    ends = determinism.SUITE.run(seed=1, trials=20)
    assert not determinism.SUITE.faults(ends), ends
