"""Whether tensors that were read from a file can be weights: of a usual width, whole, finite."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
# Integers under such a name are quantised weights; under others they are buffers, as `relative_position_index`.
_WEIGHT_NAME = re.compile(r"(weight|bias|kernel|scale|embed|embeddings?|tokens?|table|gamma_?\d?|lambda_\d)$")


def faults_of(tensors: Mapping[str, Tensor], stored: set[int] | None) -> dict[str, list[str]]:
    """Return the names of the tensors that are of no use as weights, by what is wrong with them.

    `stored` are the sizes of the records mapped, None where nothing is; PyTorch maps as many bytes as the pickle says,
    beyond the record too.
    """
    faults: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if fault := _fault(name, tensor, stored):
            faults.setdefault(fault, []).append(name)
    return faults


def _fault(name: str, tensor: Tensor, stored: set[int] | None) -> str | None:
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        return "quantised, sparse or without data"
    # before any value is read: a view of a few bytes can claim any shape
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        return "of a shape larger than the data stored for them"
    if stored is not None and held not in stored:
        return "whose data are cut short"
    if tensor.dtype in _INTEGERS:
        return f"quantised ({tensor.dtype})" if _WEIGHT_NAME.search(name) else None
    if tensor.dtype not in _FLOATS:
        return f"of {tensor.dtype} (limit: float16, bfloat16, float32, float64)"
    return None if not tensor.numel() or _is_finite(tensor) else "with NaN or infinite values"


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype not in (torch.float32, torch.float64):
        return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
    # A finite sum has finite terms, and one that overflows is looked into. NumPy's: PyTorch's waits for a second thread
    # at each tensor, ten times as long on a busy machine.
    array = tensor.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.add.reduce(array, axis=None)) or np.isfinite(array).all())
