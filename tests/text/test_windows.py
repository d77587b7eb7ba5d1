"""Claims about windows of a text: targets follow inputs, and both ends are reached."""

import numpy as np
import pytest

from minilora.text import windows


def test_targets_are_the_inputs_shifted_by_one():
    tokens = np.arange(90, dtype=np.uint8)
    for ids, targets in (
        windows.random_windows(tokens, 5, 8, np.random.default_rng(0)),
        windows.spaced_windows(tokens, 5, 8),
    ):
        assert ids.shape == targets.shape == (5, 8)
        assert ids.dtype == targets.dtype == np.int64
        assert np.array_equal(targets, ids + 1)


def test_random_windows_reach_both_ends_and_follow_the_seed():
    tokens = np.arange(12, dtype=np.uint8)
    ids, targets = windows.random_windows(tokens, 200, 8, np.random.default_rng(3))
    assert set(ids[:, 0]) == {0, 1, 2, 3} and targets.max() == 11
    again, _ = windows.random_windows(tokens, 200, 8, np.random.default_rng(3))
    assert np.array_equal(ids, again)


def test_spaced_windows_go_from_the_first_symbol_to_the_last():
    ids, targets = windows.spaced_windows(np.arange(100, dtype=np.uint8), 4, 9)
    assert ids[:, 0].tolist() == [0, 30, 60, 90] and targets[-1, -1] == 99
    ids, _ = windows.spaced_windows(np.arange(100, dtype=np.uint8), 1, 9)
    assert ids[:, 0].tolist() == [0]


def test_text_of_one_window_gives_that_window_and_a_shorter_one_an_error():
    tokens = np.arange(9, dtype=np.uint8)
    assert windows.random_windows(tokens, 3, 8, np.random.default_rng(0))[0].max() == 7
    assert windows.spaced_windows(tokens, 3, 8)[0].max() == 7
    with pytest.raises(ValueError, match="takes 10 symbols and there are only 9"):
        windows.random_windows(tokens, 3, 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="block_size=9 .*smaller block_size"):
        windows.spaced_windows(tokens, 3, 9)
