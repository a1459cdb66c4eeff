"""The ViT family: widths, depths and heads by name.

Ti is from DeiT (arXiv 2012.12877, table 1), S from DeiT, B, L and H from ViT (arXiv 2010.11929, table 1). Patches of 8
and 14 pixels are DINO's (arXiv 2104.14294, table 1) and MAE's (arXiv 2111.06377, section 4.1). `vit_demo_patch8` is
the size of the embedded scenes and of the tests; `vit_demo_tiny_patch8` and `vit_demo_base_patch8` have half and twice
its width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Table = Literal["sincos", "learned", "none"]
Position = Literal[Table, "computed"]
QkvBias = Literal["fused", "qv", "none"]
Norm = Literal["layer", "rms"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]
RelativePosition = Literal["none", "decomposed", "table", "shared_table"]
Rotary = Literal["none", "centred", "stretched"]
RotaryFirst = Literal["rows", "columns"]
Grid = tuple[int, int]  # patches (rows, columns)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The architecture of one ViT: everything that its weights fit and nothing else."""

    embed_dim: int
    """Width of a token."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads per block; divides embed_dim."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the position table is made for; other sizes resample the table."""
    in_chans: int = 3
    """Channels of the image."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over embed_dim; the product is rounded."""
    activation: Activation = "gelu"
    """Of the MLP: an exact GELU; its tanh approximation (SigLIP); OpenAI's `x * sigmoid(1.702 x)` (CLIP); or SwiGLU
    (arXiv 2002.05202, DINOv2's ViT-g), whose first layer is twice the hidden width: SiLU of one half by the other."""
    attention_norm: bool = False
    """A norm of what attention's last layer reads (EVA-02's CLIP; Sub-LN, arXiv 2210.06423)."""
    mlp_norm: bool = False
    """A norm in the MLP behind the activation (EVA-02's ViT-B and L, arXiv 2303.11331, section 2.1)."""
    bias: bool = True
    """Whether the linear layers behind attention and in the MLP have biases; AIMv2's have none (arXiv 2411.14402)."""
    norm: Norm = "layer"
    """Layer norms, or RMS norms without a bias (arXiv 1910.07467, AIMv2)."""
    patch_norm: bool = False
    """A norm of the patches before their positions are added (AIMv2)."""
    pre_norm: bool = False
    """A norm of all tokens before the first block, and a patch projection without a bias (CLIP, arXiv 2103.00020)."""
    norm_eps: float = 1e-6
    """Epsilon of the norms: ViT's and MAE's; CLIP's is 1e-5."""
    position: Position = "sincos"
    """How the position table starts: MAE's fixed sin-cos table, a small random table to be learned, or no table. Or
    there is none, and MAE's sin-cos positions are computed for the patches of every image, whatever its size (AIMv2 for
    native resolution, arXiv 2411.14402, section 2.2; transformers' `modeling_aimv2`, `is_native`)."""
    distilled: bool = False
    """A second token beside the class token, DeiT's distillation token."""
    registers: int = 0
    """Learned tokens behind the class token that take no position and that no task reads (arXiv 2309.16588)."""
    qkv_bias: QkvBias = "fused"
    """One bias for queries, keys and values, BEiT's two vectors, none for the keys, or no bias at all (DINOv3)."""
    layer_scale: float | None = None
    """First value of a learned factor per channel on both branches of a block (CaiT, BEiT); None has none."""
    relative_position: RelativePosition = "none"
    """What attention adds by the distance of two patches: nothing, ViTDet's decomposed rows and columns, BEiT's table
    in every block, or BEiT's one table for all blocks of a kind (pre-training; Li et al. 2021)."""
    relative_size: tuple[int, int] | None = None
    """Height and width in pixels that the relative tables are made for; None is image_size."""
    rotary: Rotary = "none"
    """How the place of a patch turns the channels of its query and key (RoPE, arXiv 2104.09864): not; by the centres of
    patches from -1 to 1 along each axis of any image, channels in halves (DINOv3, arXiv 2508.10104, section 3.2); or
    by the numbers of row and column stretched to rotary_grid, channels in pairs of neighbours (EVA-02, arXiv
    2303.11331)."""
    rotary_base: float = 100.0
    """Base of the frequencies' geometric series: DINOv3's is 100, EVA-02's 10,000."""
    rotary_grid: Grid | None = None
    """Patches (rows, columns) that the rows and columns of any image are stretched to: EVA-02's of pre-training."""
    rotary_offset: float = 0.0
    """What is added to the numbers of row and column before they are stretched: 1 in Perception Encoder but its
    gigantic models (arXiv 2504.13181; timm's `rope_grid_offset`)."""
    rotary_first: RotaryFirst = "rows"
    """What turns the first half of the pairs of a head, rows or, in Perception Encoder, columns."""
    window_size: int = 0
    """Side in patches of the windows that attention stays in; 0 is attention over the whole image."""
    global_blocks: tuple[int, ...] = ()
    """Blocks (0-based) that attend over the whole image in spite of window_size."""

    def __post_init__(self) -> None:
        """Raise ValueError where the numbers make no ViT. Lists, as JSON and host configs have them, become tuples."""
        for name in ("image_size", "relative_size", "rotary_grid", "global_blocks"):
            if isinstance(value := getattr(self, name), Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        self._check_kinds()
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}.")
        if self.position in ("sincos", "computed") and self.embed_dim % 4:
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by 4, which a sin-cos table needs.")
        for name, size in (("image_size", self.image_size), ("relative_size", self.relative_size or self.image_size)):
            for side in size:
                if side < self.patch_size or side % self.patch_size:
                    raise ValueError(
                        f"{name} {size} is no multiple of patch_size {self.patch_size}; "
                        f"the nearest is {max(1, round(side / self.patch_size)) * self.patch_size}."
                    )
        if self.distilled and self.relative_position != "none":
            raise ValueError(
                f"distilled with relative_position {self.relative_position!r}: no public model is so made."
            )
        if self.registers and (self.window_size or self.relative_position != "none"):
            what = "windows" if self.window_size else f"relative_position {self.relative_position!r}"
            raise ValueError(f"registers {self.registers} have no place in {what}; leave them out (registers 0).")
        self._check_rotary()
        if outside := [block for block in self.global_blocks if not 0 <= block < self.depth]:
            raise ValueError(
                f"global_blocks {outside} are outside the depth of {self.depth} blocks, 0 to {self.depth - 1}."
            )

    def _check_rotary(self) -> None:
        """Raise ValueError where the rotary positions are none that can be computed."""
        if self.rotary != "none" and self.embed_dim // self.num_heads % 4:
            raise ValueError(
                f"rotary {self.rotary!r} needs heads of channels in fours, half of them for each axis in pairs; "
                f"embed_dim {self.embed_dim} in {self.num_heads} heads makes {self.embed_dim // self.num_heads}."
            )
        if (self.rotary == "stretched") != (self.rotary_grid is not None):
            raise ValueError(
                f"rotary {self.rotary!r} with rotary_grid {self.rotary_grid}: a grid belongs to 'stretched', which "
                "stretches rows and columns to it, and to nothing else."
            )
        if self.rotary != "stretched" and (self.rotary_offset, self.rotary_first) != (0, "rows"):
            raise ValueError(
                f"rotary {self.rotary!r} with rotary_offset {self.rotary_offset} and rotary_first "
                f"{self.rotary_first!r}: both belong to 'stretched'; leave them at 0 and 'rows'."
            )

    def _check_kinds(self) -> None:
        """Raise ValueError for a field that is no number or word of its kind: a file's header may hold anything."""
        for name in ("embed_dim", "depth", "num_heads", "patch_size", "in_chans"):
            _check_whole(name, getattr(self, name), 1)
        _check_whole("registers", self.registers, 0)
        _check_whole("window_size", self.window_size, 0)
        for name in ("image_size", "relative_size"):
            size = getattr(self, name)
            if size is None and name == "relative_size":
                continue
            if not isinstance(size, tuple) or len(size) != 2:
                raise ValueError(f"{name} is {size!r}; it must be a height and a width in pixels.")
            for side in size:
                _check_whole(f"a side of {name}", side, 1)
        if self.rotary_grid is not None:
            if not isinstance(self.rotary_grid, tuple) or len(self.rotary_grid) != 2:
                raise ValueError(f"rotary_grid is {self.rotary_grid!r}; it must be rows and columns of patches.")
            for side in self.rotary_grid:
                _check_whole("a side of rotary_grid", side, 1)
        if not isinstance(self.global_blocks, tuple):
            raise ValueError(f"global_blocks is {self.global_blocks!r}; it must be a tuple of block numbers.")
        for block in self.global_blocks:
            _check_whole("a block of global_blocks", block, None)
        for name, words in (
            ("position", get_args(Position)),
            ("activation", get_args(Activation)),
            ("norm", get_args(Norm)),
            ("qkv_bias", get_args(QkvBias)),
            ("relative_position", get_args(RelativePosition)),
            ("rotary", get_args(Rotary)),
            ("rotary_first", get_args(RotaryFirst)),
        ):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}; there are: {', '.join(words)}.")
        for name in ("distilled", "pre_norm", "attention_norm", "mlp_norm", "patch_norm", "bias"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be true or false.")
        _check_positive("norm_eps", self.norm_eps)
        _check_positive("rotary_base", self.rotary_base)
        if isinstance(self.rotary_offset, bool) or not isinstance(self.rotary_offset, int | float):
            raise ValueError(f"rotary_offset is {self.rotary_offset!r}; it must be a number.")
        if not math.isfinite(self.rotary_offset):
            raise ValueError(f"rotary_offset is {self.rotary_offset}; it must be finite.")
        _check_positive("mlp_ratio", self.mlp_ratio)
        if not 0.5 < self.embed_dim * self.mlp_ratio < math.inf:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} makes no hidden width of embed_dim {self.embed_dim}.")
        if self.layer_scale is not None:
            _check_positive("layer_scale", self.layer_scale)

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.embed_dim * self.mlp_ratio)

    @property
    def grid(self) -> Grid:
        """Patches (rows, columns) of the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def relative_grid(self) -> Grid:
        """Patches (rows, columns) that relative tables of whole-image attention are made for."""
        height, width = self.relative_size or self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def unusual(self) -> tuple[str, ...]:
        """What this ViT has beyond the published forms of a plain one, in words; only our own format can hold it."""
        found = {
            f"{self.registers} registers": self.registers > 0,
            f"the activation {self.activation}": self.activation != "gelu",
            "a norm before the first block": self.pre_norm,
            "a norm of the patches": self.patch_norm,
            "a norm in attention": self.attention_norm,
            "a norm in the MLP": self.mlp_norm,
            "RMS norms": self.norm == "rms",
            "linear layers without biases": not self.bias,
            "rotary positions": self.rotary != "none",
            "positions that are computed at every size": self.position == "computed",
            "no bias of queries, keys and values": self.qkv_bias == "none",
            f"norms with an epsilon of {self.norm_eps}": self.norm_eps != 1e-6,
        }
        return tuple(what for what, there in found.items() if there)

    def windowed(self, block: int) -> bool:
        """True where the block attends within windows."""
        return self.window_size > 0 and block not in self.global_blocks

    def at(self, height: int, width: int) -> "ViTConfig":
        """The same architecture with its tables for another image size in pixels."""
        return replace(self, image_size=(height, width), relative_size=None)


def _check_whole(name: str, value: object, least: int | None) -> None:
    """Raise ValueError where the value is no whole number of `least` or more, if there is a least."""
    if type(value) is not int:  # True is an int to isinstance
        raise ValueError(f"{name} is {value!r}; it must be a whole number.")
    if least is not None and value < least:
        raise ValueError(f"{name} is {value}; it must {f'be at least {least}' if least else 'not be negative'}.")


def _check_positive(name: str, value: object) -> None:
    """Raise ValueError where the value is no finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0.")


_TINY = ViTConfig(embed_dim=192, depth=12, num_heads=3)
_SMALL = ViTConfig(embed_dim=384, depth=12, num_heads=6)
_BASE = ViTConfig(embed_dim=768, depth=12, num_heads=12)
_LARGE = ViTConfig(embed_dim=1024, depth=24, num_heads=16)
_HUGE = ViTConfig(embed_dim=1280, depth=32, num_heads=16)

FAMILY: dict[str, ViTConfig] = {
    **{
        f"vit_{size}_patch{patch}": replace(config, patch_size=patch)
        for size, config in {"tiny": _TINY, "small": _SMALL, "base": _BASE, "large": _LARGE, "huge": _HUGE}.items()
        for patch in (8, 14, 16)
    },
    # ViT-g of arXiv 2106.04560, table 2
    "vit_giant_patch16": ViTConfig(embed_dim=1408, depth=40, num_heads=16, mlp_ratio=48 / 11),
    # AIMv2's ViT-L: 8 heads, a narrower MLP with a gate (arXiv 2411.14402, table 1; timm's entry)
    "vit_large_patch14_8heads": replace(_LARGE, patch_size=14, num_heads=8, mlp_ratio=2.75),
    # MoCo v3's ViT-S: 12 heads of 32 channels (arXiv 2104.02057, table 2)
    "vit_small_patch16_12heads": replace(_SMALL, num_heads=12),
    "vit_demo_tiny_patch8": ViTConfig(embed_dim=96, depth=6, num_heads=3, patch_size=8, image_size=(64, 64)),
    "vit_demo_patch8": ViTConfig(embed_dim=192, depth=6, num_heads=6, patch_size=8, image_size=(64, 64)),
    "vit_demo_base_patch8": ViTConfig(embed_dim=384, depth=6, num_heads=12, patch_size=8, image_size=(64, 64)),
}


def blocks_at_depth(blocks: tuple[int, ...], old: int, new: int) -> tuple[int, ...]:
    """Return blocks (0-based) of `old` as those at the same shares of `new` blocks, rounded half up; the last stays so.

    Blocks 3, 5, 7 and 11 of 12 are 7, 11, 15 and 23 of 24, as mmsegmentation has them.
    """
    return tuple((2 * (block + 1) * new + old) // (2 * old) - 1 for block in blocks)
