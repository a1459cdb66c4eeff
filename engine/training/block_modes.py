"""Other ways to carry out a model: blocks with less memory, or compiled (each for itself, like ones sharing), and
convolutions with channels last."""

import torch
from torch import nn

from backbones.vit import ViT
from engine.config import RunConfig
from engine.training.sharding import blocks

PER_BLOCK = 4  # variants that a block may be compiled in: training and evaluation, and sizes that change


def carry_out_as(run: RunConfig, model: nn.Module, device: torch.device) -> None:
    """Switch on what a run asks for and its device wants, in place. Raises ValueError for what the model cannot do."""
    if run.activation_checkpointing:
        checkpoint_activations(model)
    if run.compile:
        compile_blocks(model, device)
    if device.type == "cuda" and run.strategy == "ddp":  # fully_shard takes contiguous parameters alone
        channels_last(model)


def channels_last(model: nn.Module) -> list[str]:
    """Lay the weights of the convolutions around a ViT (pyramid, neck, heads) out with channels last; return their
    names.

    The kernels of a GPU's tensor cores want that layout, which a ViT's maps have, and give it to what they return. The
    ViT's own weights stay as they are: its patches are a single product, and safetensors writes contiguous tensors
    alone. A model without a ViT is left as it is.
    """
    of_vits = {inner for vit in model.modules() if isinstance(vit, ViT) for inner in vit.modules()}
    changed = []
    for name, module in model.named_modules() if of_vits else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module not in of_vits:
            module.to(memory_format=torch.channels_last)
            changed.append(name)
    return changed


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
