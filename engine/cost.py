"""What a model costs, counted by fvcore."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():  # fvcore scripts a loss at import, which PyTorch warns of
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count


class _Called(nn.Module):
    """A function as the module that fvcore asks for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def count_flops(model: nn.Module | Callable[..., Any], *inputs: Any) -> int:
    """Return the MACs of one forward pass on `inputs`, as fvcore counts them (a multiply-add is one).

    Matmuls, convolutions and norms are counted; elementwise operations are not. A function's weights are frozen.
    """
    module = model if isinstance(model, nn.Module) else _Called(model)
    training = module.training
    module.eval()
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        total = int(analysis.total())
    module.train(training)
    return total


def cost_of(backbone: nn.Module, *inputs: Any, frozen: bool) -> dict[str, Any]:
    """Return the MACs of a backbone's forward pass as the facts of a run take them; a frozen one has no backward."""
    total = count_flops(backbone, *inputs)
    return {"flops_per_image": 0 if frozen else total, "frozen_flops_per_image": total if frozen else 0}


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return int(parameter_count(module)[""])
