"""The image encoder of SAM (arXiv 2304.02643): Meta's own files and timm's `samvit_*`.

It is ViTDet's ViT (arXiv 2203.16527): windows of 14 patches but in four blocks, decomposed relative positions, no class
token and no final norm. Windows and blocks without are told by the lengths of the relative positions. Position tables
have an axis for rows and one for columns. The neck, which the mask decoder reads, and prompts and masks are dropped.
`sam_vit_{b,l,h}_*.pth` are flat. timm has no prefix and other names in the MLP; its `samvit_base_patch16_224`, which
has no position table, is refused. timm computes the norms of the blocks with an epsilon of 1e-5; Meta's 1e-6, of
the training, is taken. transformers' files are taken by source `huggingface`.
"""

import re
from dataclasses import replace

from backbones.sources.huggingface_towers import SAM, alone, rename_as
from backbones.sources.source import Source
from backbones.weights.normalisation import IMAGENET

OWN = replace(
    SAM,
    sign=re.compile(r"(image_encoder\.)?blocks\.\d+\.attn\.rel_pos_h"),
    prefix=r"(?:image_encoder\.)?",
    outside=alone({"patch_embed.proj": "patch_embed.proj", "pos_embed": "pos_embed"}),
    block=re.compile(r"blocks\.(\d+)\.(.+)"),
    in_block={**SAM.in_block, **alone({name: name for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")})},
    drop=(
        (r"(image_encoder\.)?neck\..*", "SAM's neck, which its mask decoder reads"),
        (r"(prompt_encoder|mask_decoder)\..*", "SAM's prompts and masks"),
    ),
)

SOURCE = Source(
    name="sam",
    title="SAM: the image encoder of Meta's own files, timm samvit_*",
    entries=("model", "state_dict"),
    rename=lambda tensors: rename_as(OWN, tensors),
    normalisation=IMAGENET,
)
