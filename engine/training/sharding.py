"""Fully sharded training (FSDP; PyTorch's `fully_shard`): each process keeps a share of weights, gradients and moments.

Every transformer block is a unit that is gathered for its forward and backward pass; the rest of the model is one more.
A checkpoint holds whole tensors all the same, so a run can be resumed, evaluated and exported without sharding.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from backbones.layers import Block


def shard(model: nn.Module, mesh: DeviceMesh, *, gathers: torch.dtype | None = None) -> nn.Module:
    """Spread the model's parameters over the processes of `mesh`, in place, and return it.

    With `gathers` the weights of attention and MLP, nearly all there are, are gathered in that dtype, and their
    gradients summed in float32. Norms, positions, tokens and heads are always gathered in float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=gathers, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks(model):
        for part in (block.attn, block.mlp) if gathers is not None else ():
            fully_shard(part, mesh=mesh, mp_policy=policy)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def blocks(model: nn.Module) -> list[Block]:
    """Return the transformer blocks of the model, whatever holds them: ViTs, the decoder of MAE."""
    return [module for module in model.modules() if isinstance(module, Block)]


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Have every process hold all weights for a while, so that it can evaluate at its own pace."""
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if isinstance(model, FSDPModule):
        # the units must know their root before any of them runs alone; PyTorch finds it in the first forward pass
        model._get_fsdp_state()._lazy_init()
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def unshard_for_good(model: nn.Module) -> None:
    """Turn the parameters into whole ones; the model trains no more, but is written like any other."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                whole = nn.Parameter(parameter.full_tensor().detach(), requires_grad=parameter.requires_grad)
                module._parameters[name] = whole


def whole_tensors(state: Any, *, keep: bool) -> Any:
    """Return a nest of values with every shard gathered, one at a time, in the memory of the CPU.

    Every process must ask; where `keep` is False it gets None in place of what was spread.
    """

    def gather(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()
        return whole.cpu() if keep else None

    return tree_map(gather, state)


def shards_like(values: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors cut as those of the same name in `present` are."""
    return {name: _cut(value, present.get(name)) for name, value in values.items()}


def moments_like(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of an optimiser with its whole moments cut, one at a time, as the parameters of `optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(number: int, moments: Mapping[str, Any]) -> dict[str, Any]:
        like = parameters[number] if number < len(parameters) else None
        fits = {
            name for name, value in moments.items() if like is not None and getattr(value, "shape", 0) == like.shape
        }
        return {name: _cut(value, like) if name in fits - {"step"} else value for name, value in moments.items()}

    return {**state, "state": {number: cut(number, moments) for number, moments in state["state"].items()}}


def whole(value: Tensor) -> Tensor:
    """Return a tensor, gathered where it was spread over processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _cut(value: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    value = value.to(like.device_mesh.device_type)
    with torch.no_grad():
        # a copy: the part would hold on to the memory of the whole
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None).clone()
