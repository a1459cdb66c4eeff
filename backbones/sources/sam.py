"""The image encoder of SAM (arXiv 2304.02643): Meta's own files, and transformers' SamModel and SamVisionModel.

It is ViTDet's ViT (arXiv 2203.16527): windows of 14 patches but in four blocks, decomposed relative positions, no class
token and no final norm. Windows and blocks without are told by the lengths of the relative positions. Position tables
have an axis for rows and one for columns. The neck, which the mask decoder reads, and prompts and masks are dropped.
`sam_vit_{b,l,h}_*.pth` are flat. transformers' files are taken by source `huggingface`.
"""

import re
from dataclasses import replace

from backbones.sources.huggingface_towers import SAM, alone, rename_as
from backbones.sources.source import Source
from backbones.weights.normalisation import IMAGENET

OWN = replace(
    SAM,
    sign=re.compile(r"image_encoder\.blocks\.\d+\.attn\.qkv\.weight"),
    prefix=r"image_encoder\.",
    outside=alone({"patch_embed.proj": "patch_embed.proj", "pos_embed": "pos_embed"}),
    block=re.compile(r"blocks\.(\d+)\.(.+)"),
    in_block={**SAM.in_block, **alone({"norm1": "norm1", "norm2": "norm2"})},
    drop=(
        (r"image_encoder\.neck\..*", "SAM's neck, which its mask decoder reads"),
        (r"(prompt_encoder|mask_decoder)\..*", "SAM's prompts and masks"),
    ),
)

SOURCE = Source(
    name="sam",
    title="SAM: the image encoder of Meta's own files",
    entries=("model", "state_dict"),
    rename=lambda tensors: rename_as(OWN, tensors),
    normalisation=IMAGENET,
)
