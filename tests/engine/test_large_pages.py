"""Large CPU tensors lie on large pages, where Linux has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import engine, resource, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(25_000_000)  # 100 MB: 24,400 pages of 4 KiB, 48 of 2 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    """Return the page faults of a process that fills 100 MB."""
    given = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, check=True, env={**given, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(
    not SETTING.is_file() or "[madvise]" not in SETTING.read_text(), reason="Linux gives large pages to none or to all"
)
def test_large_tensors_lie_on_large_pages_unless_the_user_says_otherwise() -> None:
    small_pages = faults(THP_MEM_ALLOC_ENABLE="0")
    assert small_pages > 20_000
    assert faults() < small_pages / 2  # a few hundred, but for memory that is in pieces
