"""The programs of perf/retrieval.py find the same, and one that does not is an error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perf.retrieval import OF_FAISS, PROGRAMS, Args, check, drawn, run_once


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_finds_what_topk_finds(name: str) -> None:
    if name in OF_FAISS:
        pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    memory, query = drawn(400, 24, 0), drawn(90, 24, 1)
    similarity, place = PROGRAMS[name](memory, query)
    expected = PROGRAMS["topk"](memory, query)
    torch.testing.assert_close(similarity, expected[0], atol=1e-6, rtol=0)  # another order of sums
    assert torch.equal(place, expected[1])


def test_what_is_measured() -> None:
    args = Args(memory=20_000, queries=300, width=64)
    made = {name: run_once(name, args) for name in ("topk", "ours, exact")}
    assert made["topk"]["seconds"] > 0
    check({name: [one] for name, one in made.items()})
    made["ours, exact"]["place"] += 50
    with pytest.raises(ValueError, match=r"ours, exact finds a mean place of \d+.*, topk \d+"):
        check({name: [one] for name, one in made.items()})


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    script = Path(__file__).resolve().parents[2] / "perf/retrieval.py"
    sizes = ["--memory", "20000", "--queries", "300", "--width", "64"]
    words = [sys.executable, str(script), "--only", "topk", *sizes]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["mib"] > 5  # a memory of 4.9 MiB in float32
