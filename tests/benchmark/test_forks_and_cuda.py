"""Runs are forked from a process that has left CUDA alone."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
import torch
from tools.run_benchmark import TOOLS

asked = []
torch.cuda._lazy_init = lambda: asked.append("initialised")
# as where NVML is absent: PyTorch asks CUDA itself, unless it is kept from it
torch.cuda._device_count_nvml = lambda: -1
for tool in TOOLS.values():
    tool.preload()
assert "mmengine" in sys.modules  # which counts GPUs when it is imported
child = os.fork()
if not child:
    os._exit(int(torch._C._cuda_isInBadFork()) if hasattr(torch._C, "_cuda_isInBadFork") else 0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *asked)
"""


@pytest.mark.slow
def test_what_a_study_imports_does_not_touch_cuda() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["0"], done.stdout + done.stderr
