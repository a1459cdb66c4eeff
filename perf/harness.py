"""Side by side in one run: interleaved rounds, medians, ratios against the peer as published and with our switches.

A variant is one program doing one step of work; its peer does the same work by another library. Switches are what a
user may turn on in either: `fp32` (PyTorch's default), `onednn` (float32 matmuls through oneDNN), `bf16` (autocast as
well); an optimiser is fused in the latter two. On a GPU `tf32` stands for `onednn`, and an optimiser is always fused
(perf/gpu measures there, with the same programs). A run ends in an error where a program's number is not the peer's.

Peak memory is the peak resident set of a fresh process that builds one program and takes one step, less what it had
after its imports: PyTorch counts allocations on GPUs alone.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")
Switches = Literal["fp32", "onednn", "tf32", "bf16"]
SETTINGS: tuple[Switches, ...] = ("fp32", "onednn", "bf16")
# relative; bfloat16 has 8 bits, TF32 11
TOLERANCE: dict[Switches, float] = {"fp32": 1e-4, "onednn": 1e-4, "tf32": 5e-3, "bf16": 2e-2}
MATMULS: dict[Switches, str] = {"fp32": "highest", "onednn": "medium", "tf32": "high", "bf16": "medium"}
Step = Callable[[Switches], float]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One program under one set of switches."""

    name: str
    """Library, for the table; variants of one library share it."""
    peer: bool
    """True for the library that we are compared with."""
    switches: Switches
    build: Callable[[], Step]
    """Makes the model and returns a step, whose number is the peer's if the work is the same."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.switches}"


@contextmanager
def switched(switches: Switches, device: torch.device = CPU) -> Iterator[None]:
    """Have matmuls and autocast as the switches say."""
    torch.set_float32_matmul_precision(MATMULS[switches])
    with torch.autocast(device.type, torch.bfloat16, enabled=switches == "bf16"):
        yield


def training_step(model: nn.Module, loss_of: Callable[[], Tensor], *, lr: float = 1e-6) -> Step:
    """Return forward pass, backward pass and AdamW, whose number is the loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)

    def step(switches: Switches) -> float:
        fuse(optimizer, switches)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def fuse(optimizer: torch.optim.Optimizer, switches: Switches) -> None:
    """Have AdamW fused, as our training loop has it, but for PyTorch's default on a CPU."""
    on_gpu = optimizer.param_groups[0]["params"][0].is_cuda
    optimizer.param_groups[0]["fused"] = on_gpu or switches != "fp32"


def variants(name: str, build: Callable[[], Step], *, peer: bool) -> list[Variant]:
    """Return the program under each set of switches."""
    return [Variant(name=name, peer=peer, switches=switches, build=build) for switches in SETTINGS]


def run(title: str, programs: Sequence[Variant], *, rounds: int, note: str = "", images: int | None = None) -> None:
    """Measure all programs and print a Markdown table; with the number of `images` of a step, images per second too."""
    arguments = _arguments(rounds)
    if arguments.only is not None:
        if arguments.only[0] == title:
            _print_memory(programs[int(arguments.only[1])])
        return
    if arguments.quick:
        programs = [p for p in programs if p.switches == "bf16"]
    steps = _built(programs)
    values = [_timed(p, step)[1] for p, step in zip(programs, steps, strict=True)]  # warm-up, first step
    _compare(programs, values)
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(1 if arguments.quick else arguments.rounds):
        for index, (program, step) in enumerate(zip(programs, steps, strict=True)):
            times[index].append(_timed(program, step)[0])
            print(f"\r{title}: {program.title}", " " * 20, end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    del steps
    medians = [statistics.median(series) for series in times]
    memory = (
        [None] * len(programs)
        if arguments.quick or arguments.no_memory
        else [_memory(title, i) for i in range(len(programs))]
    )
    print(f"\n### {title}\n\n{machine()}; median of {len(times[0])} interleaved rounds{note}.\n")
    rate = "" if images is None else " images/s |"
    print(
        f"| program | ms |{rate} against the peer as published | against the peer, same switches | peak MiB | value |"
    )
    print("|---|---|---|---|---|---|" + ("" if images is None else "---|"))
    for program, median, peak, value in zip(programs, medians, memory, values, strict=True):
        published = _ratio(programs, medians, median, "fp32")
        same = _ratio(programs, medians, median, program.switches)
        shown = "" if peak is None else f"{peak:,.0f}"
        rate = "" if images is None else f" {images / median:.2f} |"
        print(f"| {program.title} | {1e3 * median:,.0f} |{rate} {published} | {same} | {shown} | {value:.6g} |")


def machine() -> str:
    """Return what the numbers were measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    rates = ", ".join(f"{switches} {_matmul_rate(switches):.0f}" for switches in SETTINGS)
    return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}; matmul GFLOP/s: {rates}"


def _arguments(rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds")
    parser.add_argument("--quick", action="store_true", help="one round of bf16 alone: does it run?")
    parser.add_argument("--no-memory", action="store_true", help="time alone; memory takes a fresh process per program")
    parser.add_argument("--only", nargs=2, metavar=("TITLE", "INDEX"), help=argparse.SUPPRESS)  # memory of one program
    return parser.parse_args()


def _built(programs: Sequence[Variant]) -> list[Step]:
    """Build each program once; variants of one library share it, so that the weights fit memory."""
    shared: dict[Callable[[], Step], Step] = {}
    return [shared.setdefault(p.build, shared.get(p.build) or p.build()) for p in programs]


def _timed(program: Variant, step: Step) -> tuple[float, float]:
    with switched(program.switches):
        start = time.perf_counter()
        value = step(program.switches)
        return time.perf_counter() - start, value


def _compare(programs: Sequence[Variant], values: Sequence[float]) -> None:
    """Raise ValueError where a program's number is further from the peer's at the same switches than rounding makes."""
    for program, value in zip(programs, values, strict=True):
        theirs = next(v for p, v in zip(programs, values, strict=True) if p.peer and p.switches == program.switches)
        if not abs(value - theirs) <= TOLERANCE[program.switches] * abs(theirs):
            raise ValueError(
                f"{program.title} gave {value:.6g}, the peer {theirs:.6g}, more than {TOLERANCE[program.switches]:g} "
                "apart: the two do not do the same work, so their times say nothing; find the difference first."
            )


def _ratio(programs: Sequence[Variant], medians: Sequence[float], mine: float, switches: Switches) -> str:
    peer = [m for p, m in zip(programs, medians, strict=True) if p.peer and p.switches == switches]
    return f"{peer[0] / mine:.2f}x" if peer else ""


def _memory(title: str, index: int) -> float:
    """Return the peak resident memory that a fresh process needs above its imports, in MiB."""
    command = [sys.executable, sys.argv[0], "--only", title, str(index)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _print_memory(program: Variant) -> None:
    before = _peak_mib()
    _timed(program, program.build())
    print(_peak_mib() - before)


def _peak_mib() -> float:
    # VmHWM starts anew with the program; getrusage's peak is inherited from the parent
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def _matmul_rate(switches: Switches) -> float:
    """Return GFLOP/s of a matmul of ViT-B's MLP, what the best of programs could reach."""
    kind = torch.bfloat16 if switches == "bf16" else torch.float32
    torch.set_float32_matmul_precision(MATMULS[switches])
    x, weight = torch.randn(1576, 768).to(kind), torch.randn(3072, 768).to(kind)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        seconds.append(time.perf_counter() - start)
    return 2 * 1576 * 768 * 3072 / statistics.median(seconds) / 1e9
