"""A CUDA device that is not there: tensors that say they are on it, keep their values in the CPU's memory, and refuse
to meet others.

Inside `pretended()`, `tensor.to("cuda:0")`, `torch.zeros(2, device="cuda:0")` and `model.to("cuda:0")` work on any
machine. An operation on tensors of both devices raises, as on a GPU, and so do `.numpy()` and an index on the device of
a tensor that is not. The arithmetic is the CPU's, so whole tasks train, evaluate and predict here, the parts that look
at values too (proposals, suppression), and their numbers can be compared. What only a GPU has (its kernels, streams,
autocast, memory) is not seen.

The C++ side of a tensor stays on the CPU, since autograd there would ask CUDA's driver for a stream. So a backward pass
may mix devices: what autograd makes by itself there is on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, DEVICE = torch.device("cpu"), torch.device("cuda", 0)
TAKES_CPU_INDICES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Pretended(Tensor):
    """A tensor on the device that is not there."""

    values: Tensor
    """What it holds, on the CPU."""
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> "Pretended":
        """Wrap `values`, which nothing else should write to."""
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=CPU,
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation of which one operand is on the device."""
        return _carried_out(func, args, kwargs or {})

    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.values})"

    def get_device(self) -> int:
        """Return the number of the device."""
        return 0

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor as `Tensor.to` does, which does not know where this one is."""
        first = args[0] if args else kwargs.get("other")
        if isinstance(first, Tensor):
            return self.to(first.device, first.dtype)
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **{k: v for k, v in kwargs.items() if k != "copy"})
        moved: Tensor = self if dtype is None else super().to(dtype)
        if device is not None and device.type == "cpu":
            return moved.cpu()
        return moved.clone() if kwargs.get("copy") and moved is self else moved

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        """Return a copy on the CPU."""
        return _ToCPU.apply(self)

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        """Return the tensor, which is there."""
        return self

    def numpy(self, *, force: bool = False) -> Any:
        """Raise what a tensor on a GPU raises."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """Return the numbers."""
        return self.values.tolist()

    def unsqueeze_(self, dim: int) -> Tensor:
        """Return the tensor with one more axis: another object, so only what is returned is right."""
        return self.unsqueeze(dim)

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        """Return a tensor from numbers, on the device."""
        return torch.tensor(data, dtype=self.dtype if dtype is None else dtype, device=DEVICE)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().values.__reduce_ex__(protocol)


class _ToCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, moved: Pretended) -> Tensor:
        return moved.values.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Pretended(gradient)


def _carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    here = [x for x in tensors if isinstance(x, Pretended)]
    wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if wanted == CPU and name.startswith("aten::new_") | name.endswith("_like"):
        wanted = None  # the C++ side filled in where it takes `self` to be
    there = wanted.type == "cuda" if wanted is not None else bool(here)
    backward = torch._C._current_graph_task_id() != -1  # autograd's own zeros are made where the C++ side is
    if here and name != "aten::copy_" and wanted is None and not backward:
        _refuse_others(name, args, tensors)
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != ("cuda" if there else "cpu"):
        raise RuntimeError(f"{name}: a generator of {generator.device} for a tensor of {'cuda' if there else 'cpu'}")
    if here and name == "aten::as_strided_" and _same_places(*args):
        return args[0]
    if here and torch.Tag.inplace_view in func.tags:
        raise NotImplementedError(f"{name}: the shape of a pretended tensor cannot be changed in place.")
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": CPU}
    of = {id(x.values): x for x in here}
    made = func(*tree_map(_values, args), **{key: tree_map(_values, value) for key, value in kwargs.items()})
    if name == "aten::copy_":
        return args[0]

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return of[id(x)] if id(x) in of else Pretended(x) if there else x

    return tree_map(placed, made)


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Pretended) else x


def _same_places(x: Tensor, size: list[int], stride: list[int], offset: int | None = None) -> bool:
    """Return whether other strides change nothing: those of axes of one element (pooling to 1 x 1 does it)."""
    same = all(n == 1 or old == new for n, old, new in zip(size, x.stride(), stride, strict=True))
    return tuple(size) == tuple(x.shape) and offset in (None, x.storage_offset()) and same


def _refuse_others(name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise RuntimeError where a tensor with axes is on the CPU, but for the indices of a tensor on the device."""
    others = [x for x in tensors if not isinstance(x, Pretended) and x.dim() > 0]
    if name in TAKES_CPU_INDICES and isinstance(args[0], Pretended):
        indices = {id(x) for x in tree_leaves(args[1])}
        others = [x for x in others if id(x) not in indices]
    if others:
        shapes = ", ".join(f"{'cuda' if isinstance(x, Pretended) else 'cpu'} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {shapes}.")


class _Operations(TorchDispatchMode):
    """Sees operations without an operand on the device: those that make a tensor there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out the operation."""
        return _carried_out(func, args, kwargs or {})


class _Moves(TorchFunctionMode):
    """Sees `tensor.to(other)`, of which the C++ side would ask where `other` is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out the function."""
        kwargs = kwargs or {}
        if func is Tensor.to and len(args) == 2 and isinstance(args[1], Pretended):
            args = (args[0], args[1].device, args[1].dtype)
        if func is Tensor.type_as and isinstance(args[1], Pretended):
            return args[0].to(args[1].device, args[1].dtype)
        if func is one_hot and isinstance(args[0], Pretended):  # its C++ side makes the classes where it takes it to be
            return Pretended(one_hot(args[0].values, *args[1:], **kwargs))
        return func(*args, **kwargs)


class _Event:
    """A mark in the stream, which is passed at once."""

    def record(self) -> None:
        """Set it."""

    def synchronize(self) -> None:
        """Wait for it."""


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Give the device, and let tensors be moved to it meanwhile."""
    before = torch.__future__.get_overwrite_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) moves what it made, in sight of the modes
    try:
        with (
            patch("torch.cuda._lazy_init", lambda: None),
            patch("torch.cuda.Event", _Event),
            _Moves(),
            _Operations(),
        ):
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before[0])
        torch._C._set_only_lift_cpu_tensors(before[1])


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Ask no driver."""


def pretended_fabric() -> Fabric:
    """Return a Fabric of one process on the device, in float32."""
    strategy = SingleDeviceStrategy(device=DEVICE, accelerator=_Accelerator())
    return Fabric(strategy=strategy, devices=1, precision="32-true")
