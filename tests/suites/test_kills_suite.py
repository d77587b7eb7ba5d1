"""A small part of the suite of kills, and that it finds the fault it is made for."""

from pathlib import Path

import pytest
from kills import kill, plan, suite_of
from processes import Server, empty_folder
from small_commands import COMMANDS
from stage import Stage

pytestmark = pytest.mark.system


@pytest.fixture
def folder():
    with empty_folder() as made:
        yield Path(made)


def faults(names, folder, trials):
    chosen = [command for command in COMMANDS if command.name in names]
    with Server() as server:
        suite = suite_of(Stage(folder, server), chosen, seed=1)
        return suite.faults(suite.run(seed=1, trials=trials))


def test_commands_that_are_killed_go_on_and_leave_nothing(folder):
    assert faults(["finetune again", "sweep", "quiz", "grade"], folder, trials=8) == 0


@pytest.mark.thorough
def test_so_do_all_others(folder):
    assert faults([command.name for command in COMMANDS], folder, trials=60) == 0


def test_a_file_that_is_written_in_place_is_found(folder):
    params = next(command for command in COMMANDS if command.name == "params")
    with Server("in_small_and_careless") as server:
        stage = Stage(folder, server)
        torn = [blow for _, blow in plan(stage, [params], seed=1) if blow.opened]
        assert "a torn or lost file" in {kill(stage, params, blow)[0] for blow in torn}
