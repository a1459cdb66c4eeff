"""Other ways to carry out transformer blocks: with less memory, or compiled (each for itself, like ones sharing)."""

import torch
from torch import nn

from engine.training.sharding import blocks

PER_BLOCK = 4  # variants that a block may be compiled in: training and evaluation, and sizes that change


def compile_blocks(model: nn.Module, device: torch.device) -> None:
    """Compile every transformer block of the model, in place; names of weights stay as they are.

    Sums are in another order then, so the numbers are those of the uncompiled model up to rounding. Raises ValueError
    for a model without blocks, and where PyTorch cannot compile for this device.
    """
    found = blocks(model)
    if not found:
        raise ValueError("compile: the model has no transformer blocks.")
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(4, device=device))
    except Exception as error:  # a backend raises what it likes
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"compile: torch.compile does not work here ({type(error).__name__}: {said}). It needs a C++ compiler for "
            "CPUs and Triton for GPUs; leave --compile out, or install them."
        ) from error
    # blocks run the same code, but each rate of drop path is a variant of its own
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, PER_BLOCK * len(found))
    for block in found:
        block.compile()


def checkpoint_activations(model: nn.Module) -> None:
    """Switch activation checkpointing on. Raises ValueError for a model no part of which has the switch."""
    found = [module for module in model.modules() if hasattr(module, "activation_checkpointing")]
    if not found:
        raise ValueError("activation_checkpointing: the model has no part that can compute its activations again.")
    for module in found:
        module.activation_checkpointing = True  # type: ignore[assignment]
