"""Claims about cores: how many there are, and that BLAS gets back what training took from it."""

import itertools
import linecache
import os
import sys
import threading
from contextlib import suppress

import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from minilora.system import cores
from minilora.system.cores import one_blas_thread, usable_cores


@pytest.fixture
def two_threads():
    """BLAS with two threads; what was before is restored."""
    limits = threadpool_limits(2)
    with threadpool_limits(None):  # since threadpoolctl 3.8, else this thread alone could set it
        before = blas_threads()
    assert max(before) == 2
    yield before
    limits.restore_original_limits()


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_blas_has_one_thread_within_and_as_many_as_before_afterwards(two_threads):
    with one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == two_threads


def test_contexts_within_each_other_restore_at_the_last_end(two_threads):
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}


def test_blas_is_given_back_after_an_error(two_threads):
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == two_threads


@pytest.mark.parametrize("ends_first", ["first", "second"])
def test_contexts_that_overlap_in_two_threads_hold_to_the_last_and_restore_the_first(
    two_threads, ends_first
):
    """Had each restored what it found, one thread would be left for good."""
    entered = {name: threading.Event() for name in ("first", "second")}
    leave = {name: threading.Event() for name in entered}

    def work(name):
        with one_blas_thread():
            entered[name].set()
            assert leave[name].wait(20)

    threads = {name: threading.Thread(target=work, args=(name,)) for name in entered}
    for name in ("first", "second"):
        threads[name].start()
        assert entered[name].wait(20)
    for name in sorted(threads, key=lambda name: name != ends_first):
        assert set(blas_threads()) == {1}
        leave[name].set()
        threads[name].join(20)
    assert blas_threads() == two_threads


@pytest.mark.parametrize("moment", range(6))
def test_after_ctrl_c_while_it_was_set_or_restored_the_next_context_restores(
    moment, two_threads, monkeypatch
):
    moments = itertools.count()
    let_any_thread = cores._let_any_thread_set_limits

    def interrupted(function):
        def call(*args, **options):
            if next(moments) == moment:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(cores, "ThreadpoolController", interrupted(ThreadpoolController))
        patch.setattr(cores, "_let_any_thread_set_limits", interrupted(let_any_thread))
        patch.setattr(ThreadpoolController, "limit", interrupted(ThreadpoolController.limit))
        with suppress(KeyboardInterrupt), one_blas_thread():
            assert set(blas_threads()) == {1}
    with one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == two_threads


def test_after_ctrl_c_at_any_line_the_next_context_restores(two_threads):
    def interrupted_at(moment):
        """Whether one_blas_thread has so many lines to run."""
        lines = itertools.count()

        def trace(frame, event, arg):
            if frame.f_code is not one_blas_thread.__wrapped__.__code__:
                return None
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            may_come = event == "line" and "with" not in line  # a lock is released in any case
            if may_come and next(lines) == moment:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with one_blas_thread():
                pass
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    moments = 0
    while interrupted_at(moments):
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert blas_threads() == two_threads, f"after Ctrl-C at line {moments}"
        moments += 1
    assert moments > 10


def test_usable_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cores() == 3


@pytest.mark.parametrize(("count", "cores"), [(7, 7), (None, 1)])
def test_usable_cores_are_all_where_the_system_cannot_say(count, cores, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == cores
