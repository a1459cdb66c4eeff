"""What a training step would need, from a step on fake tensors: nothing is allocated and nothing computed.

The step is the loop's: forward under autocast, backward, AdamW, and the EMA of the weights where there is one. The
tensors that live at once are counted (engine.memory.live), and the MACs of matrix products and convolutions.
Not counted: workspaces of kernels, fragmentation, the buckets of DDP (one more copy of the gradients), CUDA's own
memory (some hundred MiB).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

from engine.config import RunConfig
from engine.memory.live import LiveMemory
from engine.training.ema import EMA
from engine.training.sharding import blocks


def _of_convolution_backward(
    grad_out: Sequence[int], x: Sequence[int], weight: Sequence[int], *others: Any, **_: Any
) -> int:
    """Return twice the MACs of a convolution's gradients, given shapes: those of its forward pass for each gradient.

    PyTorch's own formula counts the gradient of a grouped convolution's weights as of one group.
    """
    transposed, wanted = others[4], others[7]
    once: int = conv_flop_count([*x], [*weight], [*grad_out], transposed=transposed)
    return once * (bool(wanted[0]) + bool(wanted[1]))


# what FlopCounterMode miscounts, or does not know: the CPU's fused attention stands in for a GPU's
COUNTED = {
    torch.ops.aten.convolution_backward: _of_convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda dy, q, k, v, *_, **__: (
        sdpa_backward_flop_count(dy, q, k, v)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Plannable:
    """A model in training mode, and its loss on so many images of the recipe's size."""

    model: nn.Module
    run: RunConfig
    loss: Callable[[int], Tensor]
    """The loss of a batch of n images, as in training."""
    frozen: nn.Module | None = None
    """What every device holds besides the model, never trained nor sharded: a tokenizer."""
    simplified: str = ""
    """In what `loss` is simpler than training, for people."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a step on one device holds, in bytes, and computes."""

    images: int
    parameters: int
    trained: int
    weights: int
    """Bytes of parameters and buffers."""
    frozen: int
    """Bytes of what is held besides the model."""
    gradients: int
    moments: int
    ema: int
    block: int
    """Bytes of the weights of the largest transformer block."""
    activations: int
    """Bytes that the forward pass leaves for the backward pass, casts of the weights among them."""
    peak: int
    """Most bytes at once."""
    forward: int
    """MACs of the forward pass, per image."""
    training: int
    """MACs of forward and backward pass, per image."""

    def on_each_of(self, shards: int) -> int:
        """Return the peak where weights, gradients, moments and EMA are sharded (FSDP).

        The block at work and the next are whole meanwhile.
        """
        if shards == 1:
            return self.peak
        states = self.weights + self.gradients + self.moments + self.ema
        return self.peak - states + states // shards + 2 * self.block


def footprint(build: Callable[[], Plannable], *, images: int, precision: str) -> Footprint:
    """Return what a training step of `images` images needs; `build` is called where tensors are fake.

    `precision` is 32-true, bf16-mixed or 16-mixed.
    """
    return step_of(build, images=images, precision=precision)[0]


def step_of(build: Callable[[], Plannable], *, images: int, precision: str) -> tuple[Footprint, Plannable]:
    """Return the same, and what was built."""
    memory = LiveMemory()
    with FakeTensorMode():
        with _plain_initialisation():
            planned = build()
        model, run = planned.model, planned.run
        if run.activation_checkpointing:
            for module in model.modules():
                if hasattr(module, "activation_checkpointing"):
                    module.activation_checkpointing = True  # type: ignore[assignment]
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=precision != "16-mixed")
        ema = None if run.ema_decay is None else EMA(model, run.ema_decay)
        held = [*model.parameters(), *model.buffers()]
        beside = [] if planned.frozen is None else [*planned.frozen.parameters(), *planned.frozen.buffers()]
        ema_values = [] if ema is None else list(ema.values.values())

        def step(state: Callable[[], int]) -> tuple[int, int]:
            """Take a step; return how `state` grew in the forward pass, and in forward and backward pass."""
            before = state()
            with nullcontext() if precision == "32-true" else torch.autocast("cpu", dtype=torch.bfloat16):
                loss = planned.loss(images)
            forward = state() - before
            loss.backward()
            both = state() - before
            del loss
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if ema is not None:
                ema.update()
            return forward, both

        # two steps, as the counter of operations holds on to what is computed again; the first makes the moments
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as work:
            forward, training = step(work.get_total_flops)
        moments = [value for state in optimizer.state.values() for value in state.values()]
        memory.hold([*held, *beside, *ema_values, *moments])
        with memory:
            activations, _ = step(lambda: memory.live)
    counted_up = Footprint(
        images=images,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in trained),
        weights=_bytes(held),
        frozen=_bytes(beside),
        gradients=_bytes(trained),
        moments=_bytes(moments),
        ema=_bytes(ema_values),
        block=max((_bytes(list(block.parameters())) for block in blocks(model)), default=0),
        activations=activations,
        peak=memory.peak,
        forward=forward // 2 // images,  # FlopCounterMode counts a multiply-add as two
        training=training // 2 // images,
    )
    return counted_up, planned


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How many images a device can take at once."""

    images: int
    footprint: Footprint
    """At that number."""
    accumulate: int
    """Micro-batches that reach the recipe's batch."""


def fit_into(
    build: Callable[[], Plannable],
    *,
    batch_size: int,
    memory: int,
    devices: int,
    precision: str,
    shards: int,
    least: int,
) -> tuple[Fit, Plannable]:
    """Return the most images of an equal split of the batch that need at most `memory` bytes on each device.

    With it comes what was planned. `least` is what a forward pass must see (2 where there is batch norm). Raises
    ValueError where not even that fits, or where the batch cannot be shared.
    """
    if batch_size % devices:
        raise ValueError(f"a batch of {batch_size} images cannot be shared by {devices} devices.")
    share = batch_size // devices
    sizes = [n for n in range(1, share + 1) if share % n == 0 and n >= min(least, share)]
    found, planned = step_of(build, images=sizes[0], precision=precision)
    best = None
    # from the smallest up: a step's cost in time does not grow with its images, but the first that fails ends it
    while found.on_each_of(shards) <= memory:
        best = Fit(images=found.images, footprint=found, accumulate=share // found.images), planned
        larger = [n for n in sizes if n > found.images]
        if not larger:
            break
        found, planned = step_of(build, images=larger[0], precision=precision)
    if best is not None:
        return best
    raise ValueError(
        f"{sizes[0]} image(s) need {found.on_each_of(shards) / 2**30:.1f} GiB, more than the {memory / 2**30:.1f} GiB "
        "of a device. Less is needed with --activation-checkpointing, with --strategy fsdp on more devices, or by "
        "smaller images."
    )


@contextmanager
def _plain_initialisation() -> Iterator[None]:
    """Leave out the one initialisation that looks at values, which fake tensors have none of."""
    truncated = nn.init.trunc_normal_
    nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        nn.init.trunc_normal_ = truncated


def _bytes(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
