"""Claims about malloc: in training, freed arrays are reused and not given back; an import alone
changes nothing in the process.

Page faults are counted in processes of their own, which nothing else has touched.
"""

import ctypes
import os
import platform
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from minilora.system.memory import keep_freed_memory

LIBC, VERSION = platform.libc_ver()
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # of malloc.h


@pytest.fixture
def asked(monkeypatch):
    """What a glibc of our own is asked to set; it refuses what is in `asked.refused`."""
    calls = SimpleNamespace(all=[], refused=set())

    def mallopt(key, value):
        calls.all.append((key, value))
        return 0 if (key, value) in calls.refused else 1

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.99"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    return calls


@pytest.mark.skipif(LIBC != "glibc", reason="glibc's malloc alone has these settings")
def test_glibc_takes_the_settings():
    assert keep_freed_memory() is True


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2.5"), ("libc", "")])
def test_elsewhere_nothing_is_called(libc, monkeypatch):
    def refuse(name):
        raise AssertionError("the C library was opened")

    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert keep_freed_memory() is False


def test_large_arrays_come_from_one_heap_that_never_shrinks(asked):
    assert keep_freed_memory() is True
    settings = dict(asked.all)
    assert set(settings) == {M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX}
    assert settings[M_MMAP_THRESHOLD] == 2**30 and settings[M_TRIM_THRESHOLD] == 2**31 - 1
    assert settings[M_ARENA_MAX] == 1
    assert all(0 < value < 2**31 for value in settings.values())  # mallopt takes C ints


def test_older_glibc_that_allows_32_mib_gets_32_mib_and_the_rest(asked):
    asked.refused.add((M_MMAP_THRESHOLD, 2**30))
    assert keep_freed_memory() is True
    assert dict(asked.all)[M_MMAP_THRESHOLD] == 32 * 2**20  # asked for after the one refused
    assert set(dict(asked.all)) == {M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX}


def test_malloc_that_refuses_large_arrays_is_left_as_it_is(asked):
    """The other settings alone would fix its threshold at 128 KiB, where it adapts by itself."""
    asked.refused |= {(M_MMAP_THRESHOLD, 2**30), (M_MMAP_THRESHOLD, 32 * 2**20)}
    assert keep_freed_memory() is False
    assert set(dict(asked.all)) == {M_MMAP_THRESHOLD}


@pytest.mark.parametrize("key", [M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX])
def test_a_setting_that_is_refused_is_told(key, asked):
    keep_freed_memory()
    asked.refused.add((key, dict(asked.all)[key]))
    assert keep_freed_memory() is False


def run(code):
    """What a new Python prints, without settings of malloc in its environment."""
    unset = re.compile("MALLOC_|GLIBC_TUNABLES|LD_PRELOAD")
    env = {key: value for key, value in os.environ.items() if not unset.match(key)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return done.stdout.strip()


@pytest.mark.system
def test_an_import_sets_nothing_and_a_training_does():
    asked = run("""
        import platform, sys
        import numpy as np

        callers = []
        platform.libc_ver = lambda: callers.append(sys._getframe(1).f_code.co_name) or ("", "")
        import minilora as ml

        model = ml.Transformer(ml.TransformerConfig(8, 4, 1, 1, 4), rng=np.random.default_rng(0))
        before = callers.count("keep_freed_memory")
        ml.Training(model, lambda rng: None, ml.TrainConfig(steps=1, lr=1e-3))
        print(before, callers.count("keep_freed_memory"))
    """)
    assert asked == "0 1"


FAULTS = """
    import ctypes, resource
    import numpy as np
    {first}

    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages in this process: one fault each 4 KiB

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        array = np.ones(32 << 20, np.uint8)
        del array
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    print(sum(faults() for _ in range(10)))
"""


def glibc_at_least(major, minor):
    return LIBC == "glibc" and tuple(map(int, VERSION.split(".")[:2])) >= (major, minor)


@pytest.mark.system
@pytest.mark.skipif(not glibc_at_least(2, 35), reason="elsewhere 32 MiB are given back when freed")
def test_an_array_of_32_mib_costs_page_faults_once_and_not_each_time():
    numpy_alone, kept = (
        int(run(FAULTS.format(first=first)))
        for first in ("", "import minilora; minilora.keep_freed_memory()")
    )
    assert numpy_alone > 1000, f"only {numpy_alone}: is this a malloc that keeps memory by itself?"
    assert numpy_alone > 20 * kept, (numpy_alone, kept)
