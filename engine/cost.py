"""What a model costs, counted by fvcore."""

import warnings
from collections.abc import Callable, Iterator
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
    return _by_module(model if isinstance(model, nn.Module) else _Called(model), *inputs)[""]


def _by_module(module: nn.Module, *inputs: Any) -> dict[str, int]:
    """Return the MACs of a forward pass within each submodule, by its name; "" is the module itself."""
    training = module.training
    module.eval()
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        found = {name: int(count) for name, count in analysis.by_module().items()}
    module.train(training)
    return found


def cost_of(backbone: nn.Module, *inputs: Any) -> dict[str, Any]:
    """Return the MACs of a backbone's forward pass as the facts of a run take them; what is frozen has no backward.

    Nothing that learns stands before what is frozen.
    """
    by_module = _by_module(backbone, *inputs)
    frozen = sum(by_module[name] for name, _ in frozen_modules(backbone))
    return {"flops_per_image": by_module[""] - frozen, "frozen_flops_per_image": frozen}


def frozen_modules(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the largest submodules that have parameters of which none learns, itself among them, with their names."""
    parameters = [parameter.requires_grad for parameter in module.parameters()]
    if parameters and not any(parameters):
        yield name, module
        return
    for key, child in module.named_children():
        yield from frozen_modules(child, f"{name}.{key}" if name else key)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return int(parameter_count(module)[""])
