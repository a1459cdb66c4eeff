"""The parts of a ViT block (arXiv 2010.11929, section 3.1), with the parameter names of timm and of the MAE code.

Axis letters: B batch, T tokens, D width, h x w patches.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.attention import Attention
from backbones.config import Activation, Grid, Norm

LAYER_NORM_EPS = 1e-6  # MAE's and ViT's; PyTorch's default is 1e-5


class PatchEmbed(nn.Module):
    """Project non-overlapping square patches to tokens, and normalise them where there is a norm."""

    def __init__(
        self, *, patch_size: int, in_chans: int, embed_dim: int, bias: bool = True, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm = norm
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size, bias=bias)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return (B, h, w, D); an image that is no multiple of the patch is padded with zeros below and to the right.

        Raises ValueError for another number of channels.
        """
        channels, height, width = image_BCHW.shape[-3:]
        if channels != self.proj.in_channels:
            raise ValueError(
                f"image of {channels} channels for a patch projection of {self.proj.in_channels}; "
                "inflate the projection when the weights are loaded, or convert the image."
            )
        below, right = -height % self.patch_size, -width % self.patch_size
        if below or right:
            image_BCHW = F.pad(image_BCHW, (0, right, 0, below))
        x_BhwD = self.proj(image_BCHW).permute(0, 2, 3, 1)  # channels last: tokens are rows
        return x_BhwD if self.norm is None else self.norm(x_BhwD)


class Mlp(nn.Module):
    """Two linear layers with an activation between, an exact GELU unless told otherwise, and a norm or none."""

    def __init__(
        self,
        embed_dim: int,
        *,
        hidden_dim: int,
        activation: Activation = "gelu",
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        """`norm` is one of `hidden_dim` channels."""
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(embed_dim, hidden_dim * 2 if activation == "swiglu" else hidden_dim, bias=bias)
        self.norm = norm
        self.fc2 = nn.Linear(hidden_dim, embed_dim, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D)."""
        x_BTF = _activated(self.fc1(x_BTD), self.activation)
        return self.fc2(x_BTF if self.norm is None else self.norm(x_BTF))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth on both branches, over the image or within windows."""

    def __init__(
        self,
        attention: Attention,
        mlp: Mlp,
        *,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        window_size: int = 0,
        norm: Norm = "layer",
        norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        """`layer_scale` is the first value of `gamma_1` and `gamma_2` (BEiT's names), None for no factors."""
        super().__init__()
        embed_dim = attention.proj.in_features
        self.window_size = window_size
        self.norm1 = norm_of(norm, embed_dim, eps=norm_eps)
        self.attn = attention
        self.norm2 = norm_of(norm, embed_dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.gamma_1, self.gamma_2 = (
            None if layer_scale is None else nn.Parameter(torch.full((embed_dim,), layer_scale)) for _ in range(2)
        )

    def forward(
        self,
        x_BTD: Tensor,
        grid: Grid | None = None,
        shared_HTT: Tensor | None = None,
        turn_2TF: Tensor | None = None,
        mask_BTT: Tensor | None = None,
    ) -> Tensor:
        """Return (B, T, D). `grid` is that of the patches, None where some are missing; `shared_HTT` is a TableBias's,
        `turn_2TF` what `rotary.turn` gives, and `mask_BTT` True where a token may look at another.

        Raises ValueError for windows or relative positions without a grid.
        """
        attended_BTD = self.attn(self.norm1(x_BTD), grid, shared_HTT, turn_2TF, mask_BTT, window_size=self.window_size)
        x_BTD = x_BTD + self.drop_path(_scaled(attended_BTD, self.gamma_1))
        return x_BTD + self.drop_path(_scaled(self.mlp(self.norm2(x_BTD)), self.gamma_2))


def norm_of(kind: Norm, width: int, *, eps: float = LAYER_NORM_EPS) -> nn.Module:
    """Return a norm of the last axis, of `width` channels, ones and zeros at first."""
    return nn.LayerNorm(width, eps=eps) if kind == "layer" else nn.RMSNorm(width, eps=eps)


def carried_out(
    block: nn.Module,
    x_BTD: Tensor,
    grid: Grid | None = None,
    shared_HTT: Tensor | None = None,
    turn_2TF: Tensor | None = None,
    mask_BTT: Tensor | None = None,
    *,
    saving: bool,
) -> Tensor:
    """Return what a Block makes of (B, T, D); `saving` keeps its input alone for the backward pass.

    The rest is computed again there: the same numbers with less memory (arXiv 1604.06174).
    """
    if saving and torch.is_grad_enabled():
        saved: Tensor = checkpoint(block, x_BTD, grid, shared_HTT, turn_2TF, mask_BTT, use_reentrant=False)
        return saved
    made: Tensor = block(x_BTD, grid, shared_HTT, turn_2TF, mask_BTT)
    return made


def _activated(x_BTF: Tensor, activation: Activation) -> Tensor:
    """Return (B, T, F), of a gate half of that."""
    if activation == "swiglu":
        gate_BTF, gated_BTF = x_BTF.chunk(2, dim=-1)
        return F.silu(gate_BTF) * gated_BTF
    if activation == "quick_gelu":
        return x_BTF * torch.sigmoid(1.702 * x_BTF)
    return F.gelu(x_BTF, approximate="tanh" if activation == "gelu_tanh" else "none")


def _scaled(branch_BTD: Tensor, gamma_D: Tensor | None) -> Tensor:
    return branch_BTD if gamma_D is None else gamma_D * branch_BTD


def initialise(module: nn.Module) -> None:
    """Set linear layers to Xavier uniform with zero bias and norms to one and zero, as MAE's code does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.RMSNorm):
        nn.init.ones_(module.weight)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbed):
        # as one matrix of patch pixels -> width, not as a convolution
        nn.init.xavier_uniform_(module.proj.weight.view(module.proj.weight.shape[0], -1))
