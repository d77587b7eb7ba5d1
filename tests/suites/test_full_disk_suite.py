"""A small part of the suite of full disks."""

from pathlib import Path

import pytest
from full_disk import TRIED, can_mount, suite_of
from processes import Server, empty_folder
from stage import Stage

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    if not can_mount():
        pytest.skip("only root may mount a disk")
    with empty_folder() as made:
        yield Path(made)


def test_commands_on_a_full_disk_say_so_and_lose_nothing(folder):
    chosen = [one for one in TRIED if one.name in ("finetune again", "lessons", "quiz")]
    with Server() as server:
        suite = suite_of(Stage(folder, server), chosen, seed=1)
        assert suite.faults(suite.run(seed=1, trials=8)) == 0


@pytest.mark.thorough
def test_so_do_all_others(folder):
    with Server() as server:
        suite = suite_of(Stage(folder, server), TRIED, seed=1)
        assert suite.faults(suite.run(seed=1, trials=30)) == 0
