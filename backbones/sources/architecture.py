"""The architecture of a ViT from the shapes of its weights, and what shapes cannot tell."""

import math
from collections.abc import Mapping

from torch import Tensor

from backbones.config import Grid, RelativePosition, ViTConfig

# heads cannot be read from a fused projection: those of the published models by width (DeiT, ViT, MAE)
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


def infer_architecture(
    state: Mapping[str, Tensor],
    *,
    num_heads: int | None = None,
    usual_heads: Mapping[int, int] = HEADS,
    image_size: tuple[int, int] | None = None,
) -> tuple[ViTConfig, tuple[str, ...]]:
    """Return the architecture of weights in our names, and notes of what was concluded by convention.

    `num_heads` and `image_size` (pixels of the position table) are what the user declares or the file tells;
    `usual_heads` are those of the family by width, taken where weights and declaration do not tell. Raises
    ValueError where the weights make no ViT, or where they leave open what was not declared.
    """
    notes: list[str] = []
    try:
        embed_dim, in_chans, patch, across = state["patch_embed.proj.weight"].shape
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"no patch projection of four axes among {len(state)} tensors ({error}); is this the encoder of a ViT?"
        ) from error
    if patch != across:
        raise ValueError(f"the patch projection covers {patch} x {across} pixels; patches here are square.")
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
    depth = len(blocks)
    if not depth or blocks != set(range(depth)):
        raise ValueError(f"blocks {sorted(blocks)} are not 0, 1, 2, ... without a gap.")
    prefix = sum(name in state for name in ("cls_token", "dist_token"))
    relative = _relative(state)
    if num_heads is None:
        num_heads, note = _heads(state, embed_dim, relative, usual_heads)
        notes += note
    grid = _grid(state, prefix, patch, image_size, relative)
    if grid is None:
        grid = (224 // patch, 224 // patch)
        notes.append("no table states the image size: 224 pixels assumed")
    window, global_blocks, relative_grid = _windows(state, depth) if relative == "decomposed" else (0, (), None)
    scaled = "blocks.0.gamma_1" in state
    return ViTConfig(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        patch_size=patch,
        image_size=(grid[0] * patch, grid[1] * patch),
        in_chans=in_chans,
        mlp_ratio=_fc1(state).shape[0] / embed_dim,
        position="learned" if "pos_embed" in state else "none",
        distilled="dist_token" in state,
        qkv_bias="qv" if "blocks.0.attn.q_bias" in state else "fused",
        layer_scale=1.0 if scaled else None,  # the weights hold the values; a first value is for new ones
        relative_position=relative,
        relative_size=(relative_grid[0] * patch, relative_grid[1] * patch) if relative_grid else None,
        window_size=window,
        global_blocks=global_blocks,
    ), tuple(notes)


def _relative(state: Mapping[str, Tensor]) -> RelativePosition:
    if "rel_pos_bias.relative_position_bias_table" in state:
        return "shared_table"
    if "blocks.0.attn.relative_position_bias_table" in state:
        return "table"
    return "decomposed" if "blocks.0.attn.rel_pos_h" in state else "none"


def _windows(state: Mapping[str, Tensor], depth: int) -> tuple[int, tuple[int, ...], Grid]:
    """Return window side, global blocks and the grid of whole-image attention by the lengths of decomposed vectors."""
    grids = [tuple((state[f"blocks.{i}.attn.rel_pos_{axis}"].shape[0] + 1) // 2 for axis in "hw") for i in range(depth)]
    whole, smallest = max(grids), min(grids)
    if whole == smallest:
        return 0, (), (whole[0], whole[1])
    return smallest[0], tuple(i for i, grid in enumerate(grids) if grid == whole), (whole[0], whole[1])


def _heads(
    state: Mapping[str, Tensor], embed_dim: int, relative: RelativePosition, usual: Mapping[int, int]
) -> tuple[int, list[str]]:
    if relative == "decomposed":
        return embed_dim // state["blocks.0.attn.rel_pos_h"].shape[1], []
    if relative == "table":
        return state["blocks.0.attn.relative_position_bias_table"].shape[1], []
    if relative == "shared_table":
        return state["rel_pos_bias.relative_position_bias_table"].shape[1], []
    if embed_dim not in usual:
        raise ValueError(
            f"the number of attention heads cannot be read from weights {embed_dim} wide, and no published ViT of the "
            "family is that wide; declare it (--init-heads; --num-heads when converting)."
        )
    return usual[embed_dim], [
        f"num_heads {usual[embed_dim]}: that of the family's ViT {embed_dim} wide, not in the file"
    ]


def _fc1(state: Mapping[str, Tensor]) -> Tensor:
    if "blocks.0.mlp.fc1.weight" not in state:
        raise ValueError("block 0 has no mlp.fc1.weight; is this the encoder of a ViT?")
    return state["blocks.0.mlp.fc1.weight"]


def _grid(
    state: Mapping[str, Tensor],
    prefix: int,
    patch: int,
    image_size: tuple[int, int] | None,
    relative: RelativePosition,
) -> Grid | None:
    """Return the grid that the tables are made for: declared, or the square that their rows make."""
    if image_size is not None:
        return image_size[0] // patch, image_size[1] // patch
    if "pos_embed" in state:
        return _square(state["pos_embed"].shape[1] - prefix, "position table", prefix)
    if relative in ("table", "shared_table"):
        name = "blocks.0.attn." if relative == "table" else "rel_pos_bias."
        rows = state[f"{name}relative_position_bias_table"].shape[0] - (3 if prefix else 0)
        side = _square(rows, "relative position table", 3 if prefix else 0)[0]
        return (side + 1) // 2, (side + 1) // 2
    return None


def _square(rows: int, what: str, prefix: int) -> Grid:
    side = math.isqrt(max(rows, 0))
    if side * side != rows or not rows:
        raise ValueError(
            f"{what} has {rows + prefix} rows, which is no square plus {prefix}; declare the image size that it was "
            "made for (--init-image-size HEIGHT WIDTH; --image-size when converting)."
        )
    return side, side
