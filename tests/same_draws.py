"""The same random numbers on every device: those of the CPU's generator.

A GPU's generator gives others for the same seed, so dropout, stochastic depth and detectron2's sampling of anchors and
proposals would make two runs differ that are the same otherwise.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MADE = {torch.rand, torch.randn, torch.randint, torch.randperm}
LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
FILLED = {Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.exponential_}
DROPOUT = {F.dropout, F.dropout2d}


class SameDraws(TorchFunctionMode):
    """Inside it random numbers are drawn on the CPU and moved to where they are wanted."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out the function."""
        kwargs = kwargs or {}
        if func in MADE and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if func in LIKE:
            like: Tensor = args[0]
            return LIKE[func](like.shape, dtype=kwargs.get("dtype") or like.dtype).to(like.device)
        if func in FILLED and args[0].device.type != "cpu":
            drawn = func(torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs)
            with torch.no_grad():
                return args[0].copy_(drawn.to(args[0].device))
        if func in DROPOUT:
            return _dropout(*args, axes=None if func is F.dropout else 2, **kwargs)
        return func(*args, **kwargs)


def _dropout(
    x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, axes: int | None = None
) -> Tensor:
    """Return dropout of numbers, or of whole maps where the first two axes alone are drawn for."""
    if not training or p == 0:
        return x
    shape = x.shape if axes is None else (*x.shape[:axes], *(1 for _ in x.shape[axes:]))
    kept = (torch.rand(shape) >= p).to(x.device)
    return x * kept / (1 - p)
