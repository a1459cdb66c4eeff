"""Each test here is one body on two devices: on the CPU in every run of the suite, on a GPU by `pytest -m gpu`."""

from collections.abc import Iterator

import pytest
import torch

from tests.on_device import DEVICES, exact, need


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """The device that is compared with the CPU, which is another run of the CPU itself where there is no GPU."""
    need(request.param)
    return str(request.param)


@pytest.fixture
def comparable() -> Iterator[None]:
    """Same random numbers, no TF32; the setting of float32 products is put back."""
    before = torch.get_float32_matmul_precision()
    with exact():
        yield
    torch.set_float32_matmul_precision(before)
