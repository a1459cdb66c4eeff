"""Data that several test folders use."""

import os
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scenes.config import SceneCounts, ScenesConfig
from scenes.layouts import ScenesIndex, write_scenes
from tests.weight_samples import Sample, weight_samples

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests to the CPU on a machine with GPUs, but where those marked `gpu` are asked for (`-m gpu`)."""
    if (config.option.markexpr or "") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:  # as --deterministic sets it; cuBLAS reads it once
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Send what a test printed of names that are no UTF-8 to the process that collects the reports."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encodable(item) for item in value)
    return value


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("MAE_TRANSFER_DATA", REPOSITORY / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set MAE_TRANSFER_DATA")
    return folder


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> ScenesIndex:
    """A handful of procedural scenes in all three layouts."""
    counts = SceneCounts(classify_train=32, classify_val=16, classify_test=8, dense_train=12, dense_val=6, dense_test=2)
    return write_scenes(tmp_path_factory.mktemp("scenes") / "few", ScenesConfig(seed=5, counts=counts))


@pytest.fixture(autouse=True)
def _own_generators() -> object:
    """Start every test from the same seed, and keep its seeding to itself: a test passes alone as in the suite."""
    with torch.random.fork_rng(devices=[]):  # a GPU's would be made ready for work; a test that uses one seeds it
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        yield


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    """A tiny file of weights for every source."""
    return weight_samples()
