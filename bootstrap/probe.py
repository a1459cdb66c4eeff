"""What only .venv's own Python can tell: which packages import, and which devices torch sees. Prints JSON."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import warnings
from pathlib import Path

from bootstrap.environment import IMPORTS


def failed_imports() -> dict[str, str]:
    """Return module -> error of the host packages that do not import."""
    failures = {}
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises OSError, AttributeError, RuntimeError, ...
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return failures


def devices() -> list[str]:
    """Return one line per device that torch can use, and what it means for bfloat16."""
    try:
        import torch
    except Exception:
        return []
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    lines = [
        f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, bfloat16 "
        + (f"in hardware ({', '.join(native)})" if native else "emulated: autocast may gain nothing")
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if properties.major >= 8 else "no bfloat16 in hardware: use 16-mixed or 32-true"
        lines.append(f"CUDA {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")
    if len(lines) == 1:
        lines.append(f"CUDA: no device (torch is built for {torch.version.cuda or 'CPU only'})")
    return lines


def main() -> None:
    """Print the whole report."""
    warnings.simplefilter("ignore")
    report = {
        "python": platform.python_version(),
        "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "installed": {
            item.metadata["Name"]: item.version for item in importlib.metadata.distributions() if item.metadata["Name"]
        },
        "failed_imports": failed_imports(),
        "devices": devices(),
    }
    # Last line: a package may print while it is imported.
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main()
