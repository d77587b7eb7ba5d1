"""Each worker of pytest-xdist has a core: BLAS's own threads would only fight over them. And no
test needs what it writes to outlive a power cut: to wait for the disk after each of thousands of
files takes minutes."""

import os

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def disk_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
