"""Each worker of pytest-xdist has a core: BLAS's own threads would only fight over them."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
