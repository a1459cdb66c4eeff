"""The public checkpoints of DINOv2, SigLIP and CLIP.

Addresses, mean and std and licence are those of the entries of timm 1.0.31 (timm/models/vision_transformer.py); it says
no more of the data than the tag of a name.
"""

from backbones.weights.zoo_entry import HALF, OPENAI_CLIP, PublicCheckpoint

# timm's name, our architecture by its sizes, the data, mean and std
_TOWERS = (
    *(
        (f"vit_{size}_siglip_{side}.{tag}", f"vit_{size}", "WebLI", HALF)
        for size, side in (("base_patch16", 224), ("base_patch16", 512), ("large_patch16", 256), ("large_patch16", 384))
        for tag in ("webli", "v2_webli")
    ),
    *(
        (f"vit_{size}_clip_{side}.openai", f"vit_{size}", "OpenAI's pairs of image and text", OPENAI_CLIP)
        for size, side in (("base_patch16", 224), ("large_patch14", 224), ("large_patch14", 336))
    ),
)


def dinov2() -> list[PublicCheckpoint]:
    """Return the official files, without registers and with four."""
    return [
        PublicCheckpoint(
            name=f"dinov2_vit{size[0]}14{registers}_pretrain.pth",
            source="dinov2",
            architecture=f"vit_{size}_patch14",
            url=(
                f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size[0]}14/"
                f"dinov2_vit{size[0]}14{registers}_pretrain.pth"
            ),
            contents="encoder",
            normalised_target="not applicable",
            data="LVD-142M",
            epochs=None,
            licence="Apache-2.0",
        )
        for registers in ("", "_reg4")
        for size in ("small", "base", "large")
    ]


def towers() -> list[PublicCheckpoint]:
    """Return SigLIP's and CLIP's towers as timm publishes them."""
    return [
        PublicCheckpoint(
            name=f"timm/{name}",
            file="model.safetensors",
            source="timm",
            architecture=architecture,
            url=f"https://huggingface.co/timm/{name}",
            contents="encoder",
            normalised_target="not applicable",
            data=data,
            epochs=None,
            licence="Apache-2.0",
            mean=pixels[0],
            std=pixels[1],
        )
        for name, architecture, data, pixels in _TOWERS
    ]
