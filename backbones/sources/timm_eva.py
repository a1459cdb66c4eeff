"""timm's class Eva (timm/models/eva.py): which of its models the ViT here computes, and what no tensor of them shows.

The class holds EVA, EVA-02, DINOv3, timm's own ViTs with rotary positions and others. Those are read whose rotary
positions are DINOv3's, EVA-02's or Perception Encoder's, and whose blocks have their norms before the branches.
"""

from typing import Any

from timm.layers import AttentionRope, GluMlp, Mlp, RotaryEmbeddingCat, RotaryEmbeddingDinoV3, SwiGLU
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import nn

UNTOLD_POSITIONS = (
    "there is no pos_embed; timm's models without one have rotary positions, which no tensor holds, and no config.json "
    "of timm beside the file and no known name tells which they are: put that beside it, or give it timm's name"
)
UNTOLD_CLASS = (
    "there is attn.q_bias, as in timm's models of class Eva, which differ in what no tensor shows (rotary positions), "
    "and no config.json of timm beside the file and no known name tells which it is: put that beside it, or give it "
    "timm's name (of BEiT's files declare source 'beit')"
)


def eva_differences(model: Eva) -> list[str]:
    """Return in what the model computes otherwise than the ViT here; what parameters show is not looked at."""
    odd = _rotary_differences(model.rope)
    for block in model.blocks:
        if type(block) is not EvaBlock:
            odd.append(f"blocks of the class {type(block).__name__}")
            continue
        attention, mlp = block.attn, block.mlp
        if type(attention) not in (EvaAttention, AttentionRope):
            odd.append(f"attention of the class {type(attention).__name__}")
        elif attention.gate is not None or not isinstance(attention.q_norm, nn.Identity):
            odd.append("attention with a gate or with norms of queries and keys")
        elif type(attention) is AttentionRope and (
            attention.num_kv_groups != 1 or attention.rotate_half != getattr(model.rope, "rotate_half", False)
        ):
            odd.append("attention with fewer heads of keys than of queries, or with another order of turned channels")
        gated = type(mlp) is SwiGLU or (type(mlp) is GluMlp and not mlp.gate_last)
        wanted = isinstance(mlp.act, nn.SiLU) if gated else isinstance(mlp.act, nn.GELU) and type(mlp) is Mlp
        if not wanted or getattr(mlp.act, "approximate", "none") != "none":
            odd.append(f"an MLP of the class {type(mlp).__name__} with {type(mlp.act).__name__}")
    return sorted(set(odd))


def _rotary_differences(rope: nn.Module | None) -> list[str]:
    if rope is None:
        return []
    has: dict[str, Any] = vars(rope)
    wanted: dict[str, Any] = {}
    alike = False
    if type(rope) is RotaryEmbeddingDinoV3:
        wanted |= {"grid_offset": 0, "grid_indexing": "ij", "rotate_half": True}
        wanted |= {"normalize_coords": "separate", "min_period": None}
        alike = all(has[name] == value for name, value in wanted.items())
    elif type(rope) is RotaryEmbeddingCat:
        wanted |= {"rotate_half": False, "in_pixels": False, "grid_type": "index"}
        alike = has["ref_feat_shape"] is not None and all(has[name] == value for name, value in wanted.items())
    what = f"rotary positions of the class {type(rope).__name__}"
    return [] if alike else [f"{what} that are not DINOv3's, EVA-02's or Perception Encoder's"]


def eva_untold(model: Eva) -> dict[str, Any]:
    """Return the fields of ViTConfig that no tensor of the model shows."""
    found: dict[str, Any] = {"norm_eps": model.blocks[0].norm1.eps}
    if isinstance(model.rope, RotaryEmbeddingDinoV3):
        return found | {"rotary": "centred", "rotary_base": model.rope.temperature}
    if isinstance(model.rope, RotaryEmbeddingCat):
        grid = tuple(model.rope.ref_feat_shape)
        first = {"ij": "rows", "xy": "columns"}[model.rope.grid_indexing]
        found |= {"rotary": "stretched", "rotary_base": model.rope.temperature, "rotary_grid": grid}
        return found | {"rotary_offset": model.rope.grid_offset, "rotary_first": first}
    return found
