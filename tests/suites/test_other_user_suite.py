"""A small part of the suite of missing rights."""

from pathlib import Path

import pytest
from other_user import TRIED, can_be_another, suite_of
from processes import Server, empty_folder
from stage import Stage

pytestmark = pytest.mark.system


def faults(names, trials):
    if not can_be_another():
        pytest.skip("only root may become another user")
    chosen = [command for command in TRIED if command.name in names]
    with empty_folder() as folder, Server() as server:
        Path(folder).chmod(0o755)
        suite = suite_of(Stage(Path(folder), server), chosen, seed=1)
        return suite.faults(suite.run(seed=1, trials=trials))


def test_commands_without_rights_say_so_and_change_nothing():
    assert faults(["generate", "params", "quiz", "lessons"], trials=12) == 0


@pytest.mark.thorough
def test_so_do_all_others():
    assert faults([command.name for command in TRIED], trials=40) == 0
