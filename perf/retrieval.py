"""Time and memory of the search for nearest patches: ours with torch and with FAISS, torch's topk, FAISS's flat index.

    python perf/retrieval.py
    python perf/retrieval.py --memory 1000000 --queries 10000 --rounds 1

Random features of ViT-B's width, 100,000 patches of a memory and as many that ask, 30 neighbours. All start from
features in float16, standardise them and make them of length 1. `topk` holds the memory in float32 and the similarities
of 1,024 patches with all of it; `IndexFlatIP` holds it in FAISS. Each program runs in a process of its own. Prints
seconds (median of interleaved rounds), the ratio to topk, and the peak of resident memory above the features. A
program that finds others than topk (but for rounding) ends it in an error. Without FAISS its two are left out.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from segmentation.probe.config import LEADING_NEIGHBOURS, Search
from segmentation.probe.search import QUERIES_AT_ONCE, Formed, nearest

ASKING_AT_ONCE = 8192  # patches of several images, as the probe asks
Found = tuple[Tensor, Tensor]
TOLERANCE = 1e-4  # of the mean similarity: float32


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    memory: int = 100_000
    """Patches of the memory."""
    queries: int = 100_000
    """Patches that ask."""
    width: int = 768
    """Numbers of a feature."""
    rounds: int = 3
    """Interleaved rounds."""
    only: str | None = None
    """One program, once, as JSON: what a process of its own is started with."""


def drawn(rows: int, width: int, seed: int) -> Tensor:
    """Return features in float16 whose dimensions differ in mean and in scale, made in pieces."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.empty(rows, width, dtype=torch.float16)
    for part in made.split(ASKING_AT_ONCE):
        part.copy_(torch.randn(part.shape, generator=generator))
    return made


def standardised(raw_XD: Tensor) -> Tensor:
    """Return features as they are compared; mean and std are given, as a probe has them."""
    return (raw_XD.float() - 0.1) / 1.1


def ours(memory_MD: Tensor, query_QD: Tensor, search: Search) -> Found:
    """Search as tools/probe_dense.py does."""
    memory = Formed(raw_MD=memory_MD, form=lambda raw_XD, _: standardised(raw_XD))
    parts = query_QD.split(ASKING_AT_ONCE)
    found = [nearest(memory, standardised(part), LEADING_NEIGHBOURS, search=search) for part in parts]
    return torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])


def by_topk(memory_MD: Tensor, query_QD: Tensor) -> Found:
    """Search as one writes it first."""
    memory_MD = F.normalize(standardised(memory_MD), dim=1)
    queries = (F.normalize(standardised(part), dim=1) for part in query_QD.split(QUERIES_AT_ONCE))
    found = [(query_BD @ memory_MD.T).topk(LEADING_NEIGHBOURS, dim=1) for query_BD in queries]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def by_index(memory_MD: Tensor, query_QD: Tensor) -> Found:
    """Search as FAISS documents it."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(memory_MD.shape[1])
    for part in memory_MD.split(ASKING_AT_ONCE):
        index.add(F.normalize(standardised(part), dim=1).numpy())
    queries = (F.normalize(standardised(part), dim=1).numpy() for part in query_QD.split(ASKING_AT_ONCE))
    found = [index.search(query_BD, LEADING_NEIGHBOURS) for query_BD in queries]
    return torch.cat([torch.from_numpy(part[0]) for part in found]), torch.cat(
        [torch.from_numpy(part[1]) for part in found]
    )


PROGRAMS: dict[str, Callable[[Tensor, Tensor], Found]] = {
    "topk": by_topk,
    "ours, exact": lambda memory_MD, query_QD: ours(memory_MD, query_QD, "exact"),
    "ours, faiss": lambda memory_MD, query_QD: ours(memory_MD, query_QD, "faiss"),
    "IndexFlatIP": by_index,
}
OF_FAISS = ("ours, faiss", "IndexFlatIP")


def run_once(name: str, args: Args) -> dict[str, float]:
    """Return what a program takes, and the mean similarity and the mean place of what it finds."""
    memory_MD, query_QD = drawn(args.memory, args.width, 0), drawn(args.queries, args.width, 1)
    PROGRAMS[name](memory_MD[:100], query_QD[:100])  # imports, thread pools
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak starts anew
    before, began = _mib("VmRSS"), time.perf_counter()
    similarity_Qk, place_Qk = PROGRAMS[name](memory_MD, query_QD)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "mib": _mib("VmHWM") - before,
        "similarity": float(similarity_Qk.double().mean()),
        "place": float(place_Qk.double().mean()),
    }


def main() -> None:
    """Print the table."""
    from harness import machine  # beside this script

    args = tyro.cli(Args, description=__doc__)
    if args.only is not None:
        print(json.dumps(run_once(args.only, args)))
        return
    names = [name for name in PROGRAMS if name not in OF_FAISS or find_spec("faiss") is not None]
    flags = [text for key, value in asdict(args).items() if key != "only" for text in (f"--{key}", str(value))]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            command = [sys.executable, sys.argv[0], *flags, "--only", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    check(measured)
    median = {name: statistics.median(one["seconds"] for one in rounds) for name, rounds in measured.items()}
    print(f"{args.queries:,} patches ask of {args.memory:,}, width {args.width}; {machine()}\n")
    print("| search | seconds | of topk's time | peak MiB above the features |\n|---|---|---|---|")
    for name, rounds in measured.items():
        peak = max(one["mib"] for one in rounds)
        print(f"| {name} | {median[name]:.1f} | {median[name] / median['topk']:.2f} | {peak:,.0f} |")
    if len(names) < len(PROGRAMS):
        print("\nFAISS is not installed (pip install faiss-cpu): its rows are left out.")


def check(measured: dict[str, list[dict[str, float]]]) -> None:
    """Raise ValueError where a program does not find what topk finds: their times would say nothing."""
    expected = measured["topk"][0]
    for name, rounds in measured.items():
        for what in ("similarity", "place"):
            value = rounds[0][what]
            if not abs(value - expected[what]) <= TOLERANCE * abs(expected[what]):
                raise ValueError(f"{name} finds a mean {what} of {value:.6g}, topk {expected[what]:.6g}")


def _mib(name: str) -> float:
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
