"""What learns under each protocol: linear probing and partial fine-tuning (MAE, section 4.3 and appendix A.1).

A frozen parameter asks for no gradient, so it is in no group of the optimiser, and autograd keeps nothing of the blocks
before the first one that learns.
"""

from torch import nn

from backbones.vit import ViT

PROBE_NORM_EPS = 1e-6  # main_linprobe.py of MAE's code


def probe_norm(width: int) -> nn.Module:
    """Return the batch norm without affine parameters that stands before a linear probe (Doersch et al. 2015)."""
    return nn.BatchNorm1d(width, affine=False, eps=PROBE_NORM_EPS)


def freeze_all(vit: ViT) -> None:
    """Let nothing of the ViT learn."""
    vit.requires_grad_(False)


def freeze_but_last(vit: ViT, blocks: float) -> None:
    """Let the last `blocks` blocks and the final norm learn, and nothing before them.

    0.5 is the second half of the last block: its norm, MLP and layer scale.
    """
    freeze_all(vit)
    vit.norm.requires_grad_(True)
    if blocks == 0.5:
        for name, parameter in vit.blocks[-1].named_parameters():
            parameter.requires_grad_(name.startswith(("norm2.", "mlp.", "gamma_2")))
        return
    for block in vit.blocks[len(vit.blocks) - int(blocks) :]:
        block.requires_grad_(True)
