"""What the benchmarks share: layers, engines, probes, interleaved sampling.

Imported before NumPy, because its BLAS reads the number of threads when it is loaded.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
