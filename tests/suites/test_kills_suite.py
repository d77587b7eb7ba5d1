"""A small part of the suite of kills, and that it finds the fault it is made for."""

import pytest
from kills import suite_of
from processes import Server
from small_commands import COMMANDS
from stage import Stage

pytestmark = pytest.mark.system


def run(names, folder, prepare="in_small", trials=None):
    chosen = [command for command in COMMANDS if command.name in names]
    with Server(prepare) as server:
        suite = suite_of(Stage(folder, server), chosen, seed=1)
        return suite, suite.run(seed=1, trials=trials)


def test_commands_that_are_killed_go_on_and_leave_nothing(tmp_path):
    names = ("finetune again", "sweep", "quiz", "grade")
    suite, ends = run(names, tmp_path, trials=16)
    assert suite.faults(ends) == 0


@pytest.mark.thorough
def test_so_do_all_others(tmp_path):
    suite, ends = run([command.name for command in COMMANDS], tmp_path, trials=200)
    assert suite.faults(ends) == 0


def test_a_file_that_is_written_in_place_is_found(tmp_path):
    _, ends = run(["params"], tmp_path, "in_small_and_careless")
    assert ends["a torn or lost file"]
