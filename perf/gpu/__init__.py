"""Checks and measurements on a GPU, as rows of one table (tools/gpu_kit.py).

The scripts of perf/ import each other by their names alone. So that this package can too, their folder is put on the
path, last: a script may be called as a library is.
"""

import sys
from pathlib import Path

SCRIPTS = str(Path(__file__).resolve().parents[1])
if SCRIPTS not in sys.path:
    sys.path.append(SCRIPTS)
