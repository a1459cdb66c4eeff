"""The architecture of a ViT from the shapes of its weights, and what shapes cannot tell."""

import math
from collections.abc import Mapping

from torch import Tensor

from backbones.config import Grid, QkvBias, RelativePosition, ViTConfig
from backbones.relative_position import CLASS_ROWS, table_rows

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
    num_prefix_positions = sum(name in state for name in ("cls_token", "dist_token"))
    relative = _relative(state)
    told = _heads_told(state, embed_dim, relative)
    if told is not None and num_heads not in (told, None):
        raise ValueError(f"num_heads is {num_heads} by declaration or config.json; the weights have {told} heads.")
    if num_heads is None and told is None:
        num_heads = _usual_heads(embed_dim, usual_heads)
        notes.append(f"num_heads {num_heads}: that of the family's ViT {embed_dim} wide, not in the file")
    num_heads = told if num_heads is None else num_heads
    assert num_heads is not None
    grid = _grid(state, num_prefix_positions, patch, image_size, relative)
    if grid is None:
        grid = (224 // patch, 224 // patch)
        notes.append(f"no table states the image size: {grid[0] * patch} pixels assumed")
    window, global_blocks, relative_grid = _windows(state, depth) if relative == "decomposed" else (0, (), None)
    if relative_grid and not window:
        notes.append("no windows: the relative positions of all blocks are for one grid, taken as the whole image's")
    hidden, gated = mlp_shape(state)
    scaled = "blocks.0.gamma_1" in state
    return ViTConfig(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        patch_size=patch,
        image_size=(grid[0] * patch, grid[1] * patch),
        in_chans=in_chans,
        mlp_ratio=hidden / embed_dim,
        activation="swiglu" if gated else "gelu",
        position="learned" if "pos_embed" in state else "none",
        attention_norm="blocks.0.attn.norm.weight" in state,
        mlp_norm="blocks.0.mlp.norm.weight" in state,
        bias="blocks.0.mlp.fc1.bias" in state,
        norm="layer" if "blocks.0.norm1.bias" in state else "rms",
        patch_norm="patch_embed.norm.weight" in state,
        pre_norm="norm_pre.weight" in state,
        distilled="dist_token" in state,
        registers=state["reg_token"].shape[1] if "reg_token" in state else 0,
        qkv_bias=_qkv_bias(state),
        layer_scale=1.0 if scaled else None,  # the weights hold the values; a first value is for new ones
        relative_position=relative,
        relative_size=(relative_grid[0] * patch, relative_grid[1] * patch) if relative_grid else None,
        window_size=window,
        global_blocks=global_blocks,
    ), tuple(notes)


def _qkv_bias(state: Mapping[str, Tensor]) -> QkvBias:
    if "blocks.0.attn.q_bias" in state:
        return "qv"
    return "fused" if "blocks.0.attn.qkv.bias" in state else "none"


def _relative(state: Mapping[str, Tensor]) -> RelativePosition:
    if "rel_pos_bias.relative_position_bias_table" in state:
        return "shared_table"
    if "blocks.0.attn.relative_position_bias_table" in state:
        return "table"
    return "decomposed" if "blocks.0.attn.rel_pos_h" in state else "none"


def _windows(state: Mapping[str, Tensor], depth: int) -> tuple[int, tuple[int, ...], Grid]:
    """Return window side, global blocks and the grid of whole-image attention by the lengths of decomposed vectors.

    Raises ValueError where the lengths are of no such ViT: one grid for all blocks, or windows and one more grid.
    """
    names = [(f"blocks.{i}.attn.rel_pos_h", f"blocks.{i}.attn.rel_pos_w") for i in range(depth)]
    if absent := [name for pair in names for name in pair if name not in state]:
        raise ValueError(f"block 0 has relative positions, and {len(absent)} are absent, {absent[0]} the first.")
    lengths = [(state[h].shape[0], state[w].shape[0]) for h, w in names]
    if even := [pair for pair, both in zip(names, lengths, strict=True) if not both[0] % 2 or not both[1] % 2]:
        raise ValueError(
            f"{even[0][0]} or {even[0][1]} has an even number of rows ({state[even[0][0]].shape[0]} and "
            f"{state[even[0][1]].shape[0]}); n patches have 2 n - 1 distances."
        )
    grids = [((rows + 1) // 2, (columns + 1) // 2) for rows, columns in lengths]
    kinds = sorted(set(grids))
    if len(kinds) == 1:
        return 0, (), kinds[0]
    if len(kinds) > 2 or kinds[0][0] != kinds[0][1] or kinds[0][1] > kinds[1][1]:
        raise ValueError(
            f"the relative positions of the blocks are for {' and '.join(f'{h} x {w}' for h, w in kinds)} patches; "
            "there can be square windows and one grid of the whole image."
        )
    return kinds[0][0], tuple(i for i, grid in enumerate(grids) if grid == kinds[1]), kinds[1]


def _heads_told(state: Mapping[str, Tensor], embed_dim: int, relative: RelativePosition) -> int | None:
    """Return the number of heads that relative positions show, None where there are none."""
    if relative == "decomposed":
        width = state["blocks.0.attn.rel_pos_h"].shape[1]
        if embed_dim % width:
            raise ValueError(f"relative positions are {width} wide, which does not divide the width of {embed_dim}.")
        return embed_dim // width
    return None if relative == "none" else state[_table_name(relative)].shape[1]


def _table_name(relative: RelativePosition) -> str:
    return f"{'blocks.0.attn' if relative == 'table' else 'rel_pos_bias'}.relative_position_bias_table"


def _usual_heads(embed_dim: int, usual: Mapping[int, int]) -> int:
    if embed_dim not in usual:
        raise ValueError(
            f"the number of attention heads cannot be read from weights {embed_dim} wide, and no published ViT of the "
            "family is that wide; declare it (--init-heads)."
        )
    return usual[embed_dim]


def mlp_shape(state: Mapping[str, Tensor]) -> tuple[int, bool]:
    """Return the hidden width of the MLP, and whether its first layer holds a gate besides."""
    if "blocks.0.mlp.fc1.weight" not in state:
        raise ValueError("block 0 has no mlp.fc1.weight; is this the encoder of a ViT?")
    rows, second = state["blocks.0.mlp.fc1.weight"].shape[0], state.get("blocks.0.mlp.fc2.weight")
    gated = second is not None and rows == 2 * second.shape[-1]
    return (rows // 2 if gated else rows), gated


def _grid(
    state: Mapping[str, Tensor],
    num_prefix_positions: int,
    patch: int,
    image_size: tuple[int, int] | None,
    relative: RelativePosition,
) -> Grid | None:
    """Return the grid that the tables are made for: declared, or the square that their rows make.

    Raises ValueError where their rows are of another grid than the declared one.
    """
    table_kept = CLASS_ROWS if num_prefix_positions else 0
    positions = state["pos_embed"].shape[1] if "pos_embed" in state else None
    distances = state[_table_name(relative)].shape[0] if relative in ("table", "shared_table") else None
    if image_size is not None:
        grid = whole_patches(image_size, patch)
        for what, rows, kept, needed in (
            ("position table", positions, num_prefix_positions, math.prod(grid)),
            ("relative position table", distances, table_kept, table_rows(grid, class_token=False)),
        ):
            if rows is not None and rows != kept + needed:
                raise ValueError(
                    f"{what} has {rows} rows, and {image_size[0]} x {image_size[1]} pixels in patches of {patch} need "
                    f"{kept} + {needed}; the image size is declared, or config.json beside the file says it."
                )
        return grid
    if positions is not None:
        return _square(positions - num_prefix_positions, "position table", num_prefix_positions)
    if distances is not None:
        side = _square(distances - table_kept, "relative position table", table_kept)[0]
        return (side + 1) // 2, (side + 1) // 2
    return None


def whole_patches(image_size: tuple[int, int], patch: int) -> Grid:
    """Return the patches (rows, columns) of an image. Raises ValueError where they do not cover it exactly."""
    if min(image_size) < patch or image_size[0] % patch or image_size[1] % patch:
        raise ValueError(
            f"image size {image_size[0]} x {image_size[1]} is no multiple of the patch of {patch} pixels; give height "
            "and width of the images that the position table was made for."
        )
    return image_size[0] // patch, image_size[1] // patch


def _square(rows: int, what: str, num_prefix_positions: int) -> Grid:
    side = math.isqrt(max(rows, 0))
    if side * side != rows or not rows:
        raise ValueError(
            f"{what} has {rows + num_prefix_positions} rows, which is no square plus {num_prefix_positions}; declare "
            "the image size that it was made for (--init-image-size HEIGHT WIDTH)."
        )
    return side, side
