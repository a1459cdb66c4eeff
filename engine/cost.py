"""What a model costs, counted by fvcore."""

import warnings
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():  # fvcore scripts a loss at import, which PyTorch warns of
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Return the multiply-adds of one forward pass on `inputs` (fvcore's convention: a multiply-add is one).

    Matmuls, convolutions and norms are counted; elementwise operations are not.
    """
    training = module.training
    module.eval()
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        total = int(analysis.total())
    module.train(training)
    return total


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return int(parameter_count(module)[""])
