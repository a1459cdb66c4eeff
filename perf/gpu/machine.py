"""What the device is, and how fast it multiplies and copies, against its data sheet."""

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from perf.gpu.row import Ask

KINDS = ("float32", "TF32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """TFLOP/s of matrix products without sparsity, float32 sums, by the maker's data sheet; None where it has none."""

    name: str
    """Pattern of the device's name; the first that fits is taken."""
    float32: float
    tf32: float | None
    bfloat16: float | None
    float16: float | None
    source: str

    def rate(self, kind: str) -> float | None:
        """Return TFLOP/s for one of KINDS."""
        found: float | None = getattr(self, kind.lower())
        return found


H100, A100 = "NVIDIA H100 data sheet (halved where it counts sparsity)", "NVIDIA A100 data sheet"
H200, ADA = "NVIDIA H200 data sheet (halved where it counts sparsity)", "NVIDIA Ada GPU architecture paper, appendix A"
SHEETS = (
    Sheet(name=r"H100 NVL", float32=60, tf32=417.5, bfloat16=835.5, float16=835.5, source=H100),
    Sheet(name=r"H100.*PCIe", float32=51, tf32=378, bfloat16=756, float16=756, source=H100),
    Sheet(name=r"H100|GH200", float32=67, tf32=494.5, bfloat16=989.5, float16=989.5, source=H100),
    Sheet(name=r"H200 NVL", float32=60, tf32=417.5, bfloat16=835.5, float16=835.5, source=H200),
    Sheet(name=r"H200", float32=67, tf32=494.5, bfloat16=989.5, float16=989.5, source=H200),
    Sheet(name=r"A100", float32=19.5, tf32=156, bfloat16=312, float16=312, source=A100),
    Sheet(name=r"L40S", float32=91.6, tf32=183, bfloat16=362, float16=362, source="NVIDIA L40S data sheet, halved"),
    Sheet(name=r"V100-SXM2", float32=15.7, tf32=None, bfloat16=None, float16=125, source="NVIDIA V100 data sheet"),
    Sheet(name=r"V100-PCIE", float32=14, tf32=None, bfloat16=None, float16=112, source="NVIDIA V100 data sheet"),
    Sheet(name=r"RTX 4090", float32=82.6, tf32=82.6, bfloat16=165.2, float16=165.2, source=ADA),
)


def sheet_of(name: str) -> Sheet | None:
    """Return the data sheet of a device by its name; None for one that is not known, and for a part of one (MIG)."""
    if "MIG" in name:
        return None
    return next((sheet for sheet in SHEETS if re.search(sheet.name, name)), None)


def doctor(ask: Ask) -> None:
    """Say what there is."""
    from bootstrap.doctor import devices, failed_imports
    from engine.records.provenance import git_commit, library_versions

    ask.say("code", git_commit() or "no checkout")
    ask.say("libraries", ", ".join(f"{name} {version}" for name, version in library_versions().items()))
    for line in devices():
        kind, _, text = line.partition(": ")
        ask.say(kind, text)
    if ask.device == "cuda":
        ask.say(
            "CUDA, cuDNN, NCCL", f"{torch.version.cuda}, {torch.backends.cudnn.version()}, {torch.cuda.nccl.version()}"
        )
        ask.say("driver", _driver())
    ask.say("imports", "; ".join(failed_imports()) or "all")


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not there"
    asked = ("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit", "mig.mode.current")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join((done.stdout if done.returncode == 0 else done.stderr).strip().splitlines())


def rates(ask: Ask) -> None:
    """Say the rate of matrix products of each kind, and of copies to the device."""
    side, seconds = (256, 0.05) if ask.small else (8192, 0.5)
    name = torch.cuda.get_device_name() if ask.device == "cuda" else "CPU"
    sheet = sheet_of(name)
    for kind in KINDS:
        nominal = None if sheet is None else sheet.rate(kind)
        if kind in ("TF32", "float16") and ask.small:
            ask.say(f"product {kind}", "not run: no CUDA device")
            continue
        tflops = product_rate(kind, side, device=ask.device, seconds=seconds)
        beside = "nominal rate not known" if nominal is None else f"{tflops / nominal:.0%} of the nominal {nominal:g}"
        numbers = {"tflops": tflops} | ({} if nominal is None else {"nominal": nominal})
        ask.say(f"product {kind}", f"{tflops:,.3g} TFLOP/s, {side} x {side}, {beside}", **numbers)
    if sheet is not None:
        ask.say("nominal rates", f"{sheet.source}, for {name}")
    if ask.small:
        ask.say("copies", "not run: no CUDA device")
        return
    for way, pinned in (("pageable", False), ("pinned", True)):
        host = torch.empty(2**28, dtype=torch.uint8, pin_memory=pinned)
        there = torch.empty_like(host, device="cuda")
        for label, (to, of) in {"to the device": (there, host), "from it": (host, there)}.items():
            rate = host.numel() / median_seconds(partial(to.copy_, of), "cuda", seconds=0.3) / 1e9
            ask.say(f"copy {label}, {way}", f"{rate:.1f} GB/s", gigabytes=rate)
    one, other = (torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(2))
    rate = 2 * one.numel() / median_seconds(lambda: one.copy_(other), "cuda", seconds=0.2) / 1e9
    ask.say("copy on the device", f"{rate:,.0f} GB/s, read and written", gigabytes=rate)


def product_rate(kind: str, side: int, *, device: str, seconds: float) -> float:
    """Return TFLOP/s of products of two random square matrices."""
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(kind, torch.float32)
    torch.set_float32_matmul_precision("high" if kind == "TF32" else "highest")
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / median_seconds(lambda: torch.mm(a, b, out=out), device, seconds=seconds) / 1e12


def median_seconds(work: Callable[[], Tensor], device: str, *, seconds: float) -> float:
    """Return the median time of a call, over about so many seconds, after three that warm up."""
    times: list[float] = []
    for number in range(1000):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - start)
        if len(times) >= 3 and sum(times) > seconds:
            break
    return statistics.median(times)
