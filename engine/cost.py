"""What a model costs, counted by fvcore, and fused attention, which fvcore does not know."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():  # fvcore scripts a loss at import, which PyTorch warns of
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count

# names of traced operations that hold products of matrices; resampling (upsample_bilinear2d) is none
PRODUCTS = re.compile(
    r"mm(_|$)|matmul|conv|attention|einsum|dot|(^|_)(inner|bilinear|linear|mv|addmv|cdist|lstm|gru|rnn)(_|$)|transformer"
)
OPAQUE = ("prim::PythonOp", "prim::CallFunction")  # functions that the tracer does not look into


class _Called(nn.Module):
    """A function as the module that fvcore asks for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def count_flops(model: nn.Module | Callable[..., Any], *inputs: Any) -> int:
    """Return the MACs of one forward pass on `inputs`, as fvcore counts them (a multiply-add is one).

    Matmuls, convolutions, attention and norms are counted; elementwise operations are not. Attention costs the same by
    whichever kernel. A function's weights are frozen. Raises NotImplementedError for products that are not known.
    """
    return _by_module(model if isinstance(model, nn.Module) else _Called(model), *inputs)[""]


def _by_module(module: nn.Module, *inputs: Any) -> dict[str, int]:
    """Return the MACs of a forward pass within each submodule, by its name; "" is the module itself."""
    training = module.training
    module.eval()
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    try:
        with torch.no_grad():
            found = {name: int(count) for name, count in analysis.by_module().items()}
    finally:
        module.train(training)
    if unknown := sorted(name for name in analysis.unsupported_ops() if _has_products(name)):
        raise NotImplementedError(
            f"{type(module).__name__}: the MACs of {', '.join(unknown)} are not counted, so its cost is not known; "
            "engine/cost.py needs a handle for each."
        )
    return found


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Return the MACs of q k^T and of the scores times v: a number of the result costs one of each per key and channel.

    `inputs` and `outputs` are values of the traced graph. Masked scores are counted, as those of two matmuls are.
    """
    q, k, v = (value.type().sizes() for value in inputs[:3])
    return math.prod(outputs[0].type().sizes()[:-1]) * k[-2] * (q[-1] + v[-1])


def _has_products(name: str) -> bool:
    """Return whether a traced operation, as aten::bmm, is one whose MACs may not be left out."""
    return name.startswith(OPAQUE) or PRODUCTS.search(name.partition("::")[2]) is not None


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
