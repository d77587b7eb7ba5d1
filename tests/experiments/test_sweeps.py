"""Claims about sweeps: no finished run is repeated, none is lost, and it is all the same where they
ran.

Processes are killed and interrupted here. The runs write to a log when they begin and end, so that
it can be counted how often each was run; their functions are in this file, where the processes of
joblib and the workers of Dask can import them.
"""

import gc
import importlib.util
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minilora.experiments.sweeps import SweepInterrupted, forget_runs, run_files, sweep
from minilora.experiments.tuning import tune
from minilora.system.errors import UsageError

SEVERAL = pytest.mark.skipif(find_spec("joblib") is None, reason="needs joblib")
CLUSTER = pytest.mark.skipif(find_spec("distributed") is None, reason="needs distributed")
JOBS = pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=[SEVERAL, pytest.mark.system])])
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
SYSTEM = pytest.mark.system


def logged(number, log, **ignored):
    note(log, f"begin {number}")
    note(log, f"end {number}")
    return [{"number": number, "square": number**2}, {"number": -number, "square": number**2}]


def first_ends_last(number, log):
    if number == 0:
        wait_for(lambda: ended(log) == 4)
    return logged(number, log)


def raising(number, log):
    if number == 3:
        wait_until_three_are_saved(log)
        raise ValueError("three is a number that this cannot do")
    return logged(number, log)


def killed_once(number, log):
    if number == 3 and "killed" not in log_of(log):
        wait_until_three_are_saved(log)
        note(log, "killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return logged(number, log)


def stalling(number, log):
    """From number 4 on, wait to be told to go on."""
    note(log, f"begin {number}")
    if number >= 4:
        wait_for(lambda: "go" in log_of(log))
    note(log, f"end {number}")
    return [{"number": number, "square": number**2}, {"number": -number, "square": number**2}]


def trained(seed):
    t = tune("code", "lora", seed, steps=3)
    weights = b"".join(p.data.tobytes() for p in t.model.parameters())
    return [{"losses": t.training.history.losses, "weights": zlib.crc32(weights)}]


def blas_threads(seed):
    np.ones((2, 2)) @ np.ones((2, 2))
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [{"threads": pool["num_threads"]} for pool in pools]


def note(log, line):
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def log_of(log):
    return Path(log).read_text("utf-8").splitlines() if Path(log).exists() else []


def ended(log):
    return sum(line.startswith("end") for line in log_of(log))


def wait_until_three_are_saved(log):
    wait_for(lambda: saved_numbers(Path(log).parent / "rows") >= {0, 1, 2})


def numbered(folder, n, **options):
    return [{"number": i, "log": str(folder / "log")} | options for i in range(n)]


def times_run(folder):
    """{number: how often its run was begun}"""
    begun = [int(line.split()[1]) for line in log_of(folder / "log") if line.startswith("begin")]
    return {number: begun.count(number) for number in begun}


def saved_numbers(folder):
    files = (json.loads(file.read_text("utf-8")) for file in folder.glob("*.json"))
    return {found["rows"][0]["number"] for found in files}


def squares(n):
    return [{"number": sign * i, "square": i * i} for i in range(n) for sign in (1, -1)]


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def processes_end():
    yield
    if "joblib" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)


@SYSTEM
@SEVERAL
def test_several_runs_at_a_time_give_rows_in_the_order_of_their_settings(tmp_path):
    rows = sweep(first_ends_last, numbered(tmp_path, 5), tmp_path / "rows", jobs=2)
    assert rows == squares(5)
    assert log_of(tmp_path / "log")[-1] == "end 0"


@JOBS
def test_finished_runs_are_not_run_again_and_missing_ones_are(jobs, tmp_path):
    rows = tmp_path / "rows"
    first = sweep(logged, numbered(tmp_path, 3), rows, jobs=jobs)
    assert sweep(logged, numbered(tmp_path, 3), rows, jobs=jobs) == first == squares(3)
    assert sweep(logged, numbered(tmp_path, 5)[::-1], rows, jobs=jobs)[:2] == squares(5)[-2:]
    assert times_run(tmp_path) == dict.fromkeys(range(5), 1)
    (lost,) = (file for file in rows.iterdir() if '"number": 1,' in file.read_text("utf-8"))
    lost.unlink()
    assert sweep(logged, numbered(tmp_path, 5), rows, jobs=jobs) == squares(5)
    assert times_run(tmp_path) == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1}


def test_a_pipe_hears_of_every_finished_run_if_it_asks(tmp_path):
    told = []
    sweep(logged, numbered(tmp_path, 2), tmp_path / "rows", jobs=1, name="mine", say=told.append)
    assert told == ["mine: 1 of 2 runs are finished", "mine: 2 of 2 runs are finished"]


def test_a_run_is_known_by_its_function_its_settings_and_the_version(tmp_path, monkeypatch):
    rows = tmp_path / "rows"
    sweep(logged, numbered(tmp_path, 1), rows, jobs=1)
    backwards = [dict(reversed(s.items())) for s in numbered(tmp_path, 1)]
    sweep(logged, backwards, rows, jobs=1)
    assert times_run(tmp_path) == {0: 1}
    sweep(raising, numbered(tmp_path, 1), rows, jobs=1)
    sweep(logged, numbered(tmp_path, 1, other=0), rows, jobs=1)
    assert times_run(tmp_path) == {0: 3}
    monkeypatch.setattr("minilora.experiments.sweeps.__version__", "another")
    sweep(logged, numbered(tmp_path, 1), rows, jobs=1)
    assert times_run(tmp_path) == {0: 4}


def test_rows_of_a_function_that_was_edited_are_not_those_of_the_new_one(tmp_path, monkeypatch):
    """Of the same name, as in a file or a notebook's cell that is changed and run again."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited.py"
    for factor in (1, 10, 100):
        file.write_text(f"def run(x):\n    return [{{'y': {factor} * x}}]\n", "utf-8")
        importlib.invalidate_caches()
        sys.modules.pop("edited", None)
        linecache.clearcache()
        spec = importlib.util.spec_from_file_location("edited", file)
        module = importlib.util.module_from_spec(spec)
        exec(compile(file.read_text("utf-8"), file, "exec"), vars(module))
        rows = sweep(module.run, [{"x": 2}], tmp_path / "rows", jobs=1)
        assert rows == [{"y": 2 * factor}]


def test_a_function_whose_text_nobody_can_read_is_refused(tmp_path):
    namespace = {}
    exec("def run(x):\n    return [{'y': x}]", namespace)
    for run in (namespace["run"], partial(logged, number=1), print, None, 3):
        with pytest.raises(UsageError, match="the source of .* cannot be read.*define it with def"):
            sweep(run, [{"x": 1}], tmp_path / "rows", jobs=1)
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "true",
        "{}",
        "[]",
        "[1, 2]",
        '[{"number":',
        "\x00",
        '{"seal": "0", "rows": []}',
        '{"seal": "0", "rows": [{"number": 1}]}',
        '{"rows": [{"number": 1}]}',
        "[" * 100_000,
        '{"seal": "0", "rows": [{"number": 1%s}]}' % ("0" * 5000),
    ],
)
def test_a_run_file_that_is_damaged_is_named_and_its_run_repeated(content, tmp_path):
    rows = tmp_path / "rows"
    first = sweep(logged, numbered(tmp_path, 2), rows, jobs=1)
    damaged = sorted(rows.iterdir())[0]
    damaged.write_text(content, "utf-8")
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged; its run is repeated"):
        assert sweep(logged, numbered(tmp_path, 2), rows, jobs=1) == first
    assert sorted(times_run(tmp_path).values()) == [1, 2]
    assert sweep(logged, numbered(tmp_path, 2), rows, jobs=1) == first


def test_a_digit_that_changed_on_the_disk_is_no_result(tmp_path):
    rows = tmp_path / "rows"
    first = sweep(logged, numbered(tmp_path, 1), rows, jobs=1)
    (file,) = rows.iterdir()
    text = file.read_text("utf-8")
    file.write_text(text.replace('"number": 0', '"number": 7'), "utf-8")
    assert file.read_text("utf-8") != text
    with pytest.warns(UserWarning, match="is damaged; its run is repeated"):
        assert sweep(logged, numbered(tmp_path, 1), rows, jobs=1) == first


def test_two_files_that_changed_places_are_not_taken_for_each_other(tmp_path):
    rows = tmp_path / "rows"
    first = sweep(logged, numbered(tmp_path, 2), rows, jobs=1)
    one, other = rows.iterdir()
    one.rename(tmp_path / "x")
    other.rename(one)
    (tmp_path / "x").rename(other)
    with pytest.warns(UserWarning, match="is damaged; its run is repeated"):
        assert sweep(logged, numbered(tmp_path, 2), rows, jobs=1) == first


def unsaid(**ignored):
    return None


def one_row(**ignored):
    return {"value": 1}


def not_finite(**ignored):
    return [{"value": float("nan")}]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"jobs": 0}, "jobs must be a whole number of at least 1, got 0"),
        ({"jobs": -1}, "jobs must be .* got -1"),
        ({"jobs": 2.5}, "jobs must be .* got 2.5"),
        ({"jobs": True}, "jobs must be .* got True"),
        ({"settings": {"number": 1}}, "settings must be a list of dictionaries"),
        ({"settings": "ab"}, "settings must be a list of dictionaries"),
        ({"settings": [None]}, "settings must be a list of dictionaries"),
        ({"settings": [{"number": 1j}]}, "the settings .* are not plain JSON"),
        ({"settings": [{"number": np.arange(3)}]}, "the settings .* are not plain JSON"),
        ({"run": unsaid}, "unsaid must return rows, a list of dictionaries, and returned NoneType"),
        ({"run": one_row}, "one_row must return rows, a list of dictionaries, and returned dict"),
        ({"run": not_finite}, r"what not_finite returned is damaged \(\[0\].value is NaN, inf"),
        ({"settings": [{1: 2}]}, "settings must be a list of dictionaries by name"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(change, sentence, tmp_path):
    arguments = {"run": logged, "settings": numbered(tmp_path, 1), "jobs": 1} | change
    with pytest.raises(UsageError, match=sentence):
        sweep(folder=tmp_path / "rows", **arguments)
    assert not list((tmp_path / "rows").glob("*"))


def test_settings_may_be_a_generator_and_the_folder_a_str(tmp_path):
    rows = sweep(logged, (s for s in numbered(tmp_path, 2)), str(tmp_path / "rows"), jobs=1)
    assert rows == squares(2)


@SYSTEM
@SEVERAL
def test_what_cannot_go_to_another_process_is_named(tmp_path):
    lock = threading.Lock()

    def holding(number, log):
        return logged(number, log) if lock else []

    with pytest.raises(UsageError, match="holding cannot be sent to another process.*jobs=1"):
        sweep(holding, numbered(tmp_path, 2), tmp_path / "rows", jobs=2)
    assert sweep(holding, numbered(tmp_path, 2), tmp_path / "rows", jobs=1) == squares(2)


def test_finished_runs_are_forgotten_with_their_folder_and_nobody_elses(tmp_path):
    settings, rows = numbered(tmp_path, 2), tmp_path / "rows"
    sweep(logged, settings, rows, jobs=1)
    other = rows / "other.json"
    other.write_text("[]", "utf-8")
    forget_runs(run_files(logged, settings, rows))
    assert list(rows.iterdir()) == [other]
    other.unlink()
    forget_runs(run_files(logged, settings, rows))
    forget_runs([])
    assert not rows.exists()


def test_the_same_settings_twice_are_one_run_and_twice_its_rows(tmp_path):
    assert sweep(logged, numbered(tmp_path, 2) * 2, tmp_path / "rows", jobs=1) == squares(2) * 2
    assert times_run(tmp_path) == {0: 1, 1: 1}


def test_no_settings_are_no_rows_and_no_folder(tmp_path):
    assert sweep(logged, [], tmp_path / "rows") == []
    assert not (tmp_path / "rows").exists()


@JOBS
def test_a_run_that_raises_reaches_the_caller_and_the_others_stay(jobs, tmp_path):
    settings, rows = numbered(tmp_path, 4), tmp_path / "rows"
    with pytest.raises(ValueError, match="three is a number that this cannot do"):
        sweep(raising, settings, rows, jobs=jobs)
    assert saved_numbers(rows) == {0, 1, 2}
    with pytest.raises(ValueError, match="three is a number"):
        sweep(raising, settings, rows, jobs=jobs)
    assert times_run(tmp_path) == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.float32(1), "not plain JSON .*float32 is not JSON serializable"),
        (10**400, r"\[0\].value is NaN, infinity or a number of hundreds of digits"),
        (1.5e308, r"\[0\].value is NaN, infinity"),
        ({1: 2, "1": 3}, "it has '1' twice"),
        ("\ud800", r"\[0\].value has half of a character"),
        (json.loads('{"a":' * 150 + "1" + "}" * 150), "nested more than 100 deep"),
    ],
)
def test_rows_that_no_file_could_give_back_leave_none(value, sentence, tmp_path):
    def returning():
        return [{"value": value}]

    with pytest.raises(UsageError, match=f"^what returning returned is .*{sentence}.*; return"):
        sweep(returning, [{}], tmp_path / "rows", jobs=1)
    assert list((tmp_path / "rows").iterdir()) == []


@SYSTEM
@SEVERAL
@POSIX
def test_several_at_a_time_say_so_when_a_process_was_killed_and_go_on(tmp_path):
    settings, rows = numbered(tmp_path, 6), tmp_path / "rows"
    with pytest.raises(RuntimeError, match="a process was killed.*same command.*fewer --jobs"):
        sweep(killed_once, settings, rows, jobs=2)
    kept = saved_numbers(rows)
    assert 3 not in kept and kept >= {0, 1, 2}
    assert sweep(killed_once, settings, rows, jobs=2) == squares(6)
    assert all(times_run(tmp_path)[number] == 1 for number in kept)


@SYSTEM
@SEVERAL
def test_trainings_are_the_same_to_the_last_bit_however_many_run_at_a_time(tmp_path):
    settings = [{"seed": seed} for seed in range(3)]
    alone = sweep(trained, settings, tmp_path / "1", jobs=1)
    assert sweep(trained, settings, tmp_path / "2", jobs=2) == alone
    assert len({row["weights"] for row in alone}) == 3
    assert all(len(row["losses"]) == 3 for row in alone)


@JOBS
def test_a_run_computes_with_one_thread(jobs, tmp_path):
    rows = sweep(blas_threads, [{"seed": 0}, {"seed": 1}], tmp_path / "rows", jobs=jobs)
    assert rows and {row["threads"] for row in rows} == {1}


def test_without_joblib_one_run_at_a_time_works_and_more_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    settings, rows = numbered(tmp_path, 2), tmp_path / "rows"
    with pytest.raises(ModuleNotFoundError, match=r'install "minilora\[sweep\]", or use --jobs 1'):
        sweep(logged, settings, rows, jobs=2)
    assert sweep(logged, settings, rows, jobs=1) == squares(2)


@SEVERAL
def test_without_distributed_several_machines_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "minilora\[dask\]"'):
        sweep(logged, numbered(tmp_path, 2), tmp_path / "rows", scheduler="tcp://127.0.0.1:1")


SCRIPT = """
import sys
from pathlib import Path

from minilora.experiments.sweeps import SweepInterrupted, sweep
from test_sweeps import numbered, stalling

folder, jobs = Path(sys.argv[1]), int(sys.argv[2])
try:
    sweep(stalling, numbered(folder, 8), folder / "rows", jobs=jobs)
except SweepInterrupted as stopped:
    sys.exit(f"caught: {stopped}")
"""
HERE = str(Path(__file__).parent)


class Child:
    """The script in a process group of its own, which a signal reaches as Ctrl-C at a terminal
    does: every process of it."""

    def __init__(self, folder, jobs):
        self.folder, self.jobs = folder, jobs
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(jobs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": HERE, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def go_to_four(self):
        """Wait until four runs are saved and all processes wait in the next ones."""
        begun = 4 + self.jobs
        wait_for(lambda: sum(times_run(self.folder).values()) == begun)
        wait_for(lambda: saved_numbers(self.folder / "rows") == {0, 1, 2, 3})

    def send(self, number):
        os.killpg(self.process.pid, number)
        return self.end()

    def end(self):
        """(exit status, standard output, standard error)"""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err


def assert_goes_on(folder, jobs):
    """The same command ends well, and repeats the runs that were on their way, and no others."""
    note(folder / "log", "go")
    assert Child(folder, jobs).end() == (0, "", "")
    assert saved_numbers(folder / "rows") == set(range(8))
    assert times_run(folder) == {n: 2 if 4 <= n < 4 + jobs else 1 for n in range(8)}


@SYSTEM
@POSIX
@JOBS
def test_a_sweep_that_was_killed_goes_on_and_repeats_no_finished_run(jobs, tmp_path):
    child = Child(tmp_path, jobs)
    child.go_to_four()
    assert child.send(signal.SIGKILL)[0] == -signal.SIGKILL
    assert_goes_on(tmp_path, jobs)


@SYSTEM
@SEVERAL
@POSIX
@pytest.mark.parametrize("moment", ["while they start", "in their runs"])
def test_workers_end_with_a_sweep_that_was_killed_alone(moment, tmp_path):
    """kill -9 of the one process that could have ended them."""
    child = Child(tmp_path, 2)
    if moment == "in their runs":
        child.go_to_four()
    wait_for(lambda: len(children_of(child.process.pid)) >= 4)  # two of them look after files
    workers = children_of(child.process.pid)
    child.process.kill()
    child.process.wait()
    wait_for(lambda: not any(Path("/proc", pid, "cmdline").exists() for pid in workers), 60)
    child.end()


def assert_only_the_tracker_speaks(rest):
    """Once in twenty times joblib's resource tracker, which outlives the other processes, warns
    that it cleans up after them."""
    assert rest == "" or ("resource_tracker" in rest and "Traceback" not in rest)


@SYSTEM
@POSIX
@JOBS
def test_ctrl_c_ends_with_one_sentence_and_the_sweep_goes_on(jobs, tmp_path):
    child = Child(tmp_path, jobs)
    child.go_to_four()
    status, out, err = child.send(signal.SIGINT)
    assert (status, out) == (1, "")
    sentence, _, rest = err.partition("\n")
    assert sentence == (
        f"caught: stopped: 4 of 8 runs are finished and saved in {tmp_path / 'rows'}; "
        "the same command goes on from here"
    )
    assert_only_the_tracker_speaks(rest)
    assert_goes_on(tmp_path, jobs)


@SYSTEM
@SEVERAL
@POSIX
def test_several_processes_that_only_begin_are_quiet_about_ctrl_c_too(tmp_path):
    """Until its first run, a process is busy with imports, and would tell of each where it was."""
    child = Child(tmp_path, 2)
    pid = child.process.pid
    wait_for(lambda: len(children_of(pid)) >= 3 and hears_ctrl_c(pid))  # two, and joblib's own
    time.sleep(0.2)
    status, out, err = child.send(signal.SIGINT)
    sentence, _, rest = err.partition("\n")
    assert (status, out) == (1, "") and sentence.startswith("caught: stopped:")
    assert_only_the_tracker_speaks(rest)


def children_of(pid):
    if not Path("/proc/self/task").is_dir():
        pytest.skip("lists processes in Linux's way")
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def hears_ctrl_c(pid):
    (mask,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)


def test_ctrl_c_is_a_keyboard_interrupt():
    """So that whoever catches all errors lets it pass."""
    assert issubclass(SweepInterrupted, KeyboardInterrupt)


@SYSTEM
@CLUSTER
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_several_machines_without_a_scheduler_are_an_error_that_says_so(
    address, tmp_path, monkeypatch
):
    import distributed

    client = distributed.Client  # which waits ten seconds
    monkeypatch.setattr(distributed, "Client", lambda where, timeout: client(where, timeout=1))
    with pytest.raises(ConnectionError, match=f"no Dask scheduler answers at {address} .*`dask"):
        sweep(logged, numbered(tmp_path, 2), tmp_path / "rows", scheduler=address)


class Cluster:
    """A scheduler and two workers, as real processes. They end with the `with` block."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        scheduler = self.start("scheduler", "--port", "0", stderr=subprocess.PIPE, text=True)
        said = iter(scheduler.stderr.readline, "")
        found = (re.search(r"Scheduler at:\s+(tcp://\S+)", line) for line in said)
        self.address = next(match[1] for match in found if match)
        self.reader = threading.Thread(target=scheduler.stderr.read)  # lest the pipe fill up
        self.reader.start()
        alone = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        self.workers = [
            self.start("worker", self.address, *alone, stderr=subprocess.DEVNULL) for _ in range(2)
        ]

    def start(self, kind, *options, **pipes):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--no-dashboard"],
            env=os.environ | {"PYTHONPATH": HERE, "OPENBLAS_NUM_THREADS": "1"},
            **pipes,
        )
        self.processes.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes[::-1]:
            process.kill()
            process.wait()
        self.reader.join()
        self.processes[0].stderr.close()


@SYSTEM
@CLUSTER
@POSIX
def test_several_machines_lose_no_run_when_a_worker_dies(tmp_path):
    from distributed import Client

    settings, log = numbered(tmp_path, 10), tmp_path / "log"
    gc.collect()  # of Clients that found no scheduler: see sweep._client
    with Cluster(tmp_path) as cluster:
        with Client(cluster.address, timeout=300) as client:
            client.wait_for_workers(2, timeout=300)

        def kill_a_worker_in_its_run():
            wait_for(lambda: sum(times_run(tmp_path).values()) == 6)  # two of them wait
            cluster.workers[0].kill()
            note(log, "go")

        killer = threading.Thread(target=kill_a_worker_in_its_run)
        killer.start()
        rows = sweep(stalling, settings, tmp_path / "rows", scheduler=cluster.address)
        killer.join()
        assert cluster.workers[0].wait() == -signal.SIGKILL
    assert rows == squares(10) == sweep(stalling, settings, tmp_path / "alone", jobs=1)
    assert saved_numbers(tmp_path / "rows") == set(range(10))
    again = [n for n, times in times_run(tmp_path).items() if times == 3]  # alone is once more
    # The run that was interrupted, and perhaps one whose rows were still with the lost worker.
    assert 1 <= len(again) <= 2
    assert sum(times_run(tmp_path).values()) == 10 + len(again) + 10
