"""A step of fine-tuning ViT-B/16 at 224 pixels (forward, backward, AdamW) against timm's own model.

python perf/classification_step.py [--rounds N] [--quick]

Ours is the recipe mae_base as our loop runs it, timm's the same ViT with its head on the mean of the patch tokens. Both
start from the same weights and see the same images; drop path, mixup and cutmix are off, since the libraries draw them
differently.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from harness import CPU, Step, run, training_step, variants
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from backbones.config import ViTConfig
from backbones.sources import timm as source
from classification.heads import Classifier
from classification.recipes import mae_base
from classification.task import classifier, vit_of

BATCH, CLASSES = 8, 1000
VIT, SMOOTHING = mae_base().backbone, mae_base().augment.label_smoothing


def theirs(batch: int = BATCH, a: ViTConfig = VIT, device: torch.device = CPU) -> Step:
    model = peer(a).to(device)
    image, label = data(batch, a, device)
    return training_step(model, lambda: F.cross_entropy(model(image).float(), label, label_smoothing=SMOOTHING))


def ours(batch: int = BATCH, a: ViTConfig = VIT, device: torch.device = CPU) -> Step:
    model = tuned(a).to(device)
    image, label = data(batch, a, device)
    return training_step(model, lambda: model((image, label, []))["cross_entropy"])


def peer(a: ViTConfig) -> VisionTransformer:
    """Return timm's ViT with seeded weights and the head of MAE's fine-tuning."""
    torch.manual_seed(0)
    return VisionTransformer(
        **{"img_size": a.image_size, "patch_size": a.patch_size, "num_classes": CLASSES},
        **{"embed_dim": a.embed_dim, "depth": a.depth, "num_heads": a.num_heads},
        global_pool="avg",
    )


def tuned(a: ViTConfig) -> Classifier:
    """Return our model with the peer's weights."""
    recipe = mae_base()
    augment = replace(recipe.augment, mixup=0.0, cutmix=0.0)
    config = replace(recipe, backbone=a, augment=augment, drop_path=0.0)
    model = classifier(config, vit_of(config), num_classes=CLASSES)
    state = dict(peer(a).state_dict())
    head = {name: state.pop(name) for name in [*state] if name.startswith(("fc_norm.", "head."))}
    renamed = {f"backbone.{name}": value for name, value in source.SOURCE.rename(state).state.items()}
    model.load_state_dict(renamed | head)
    return model.train()


def data(batch: int, a: ViTConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *a.image_size, generator=generator)
    return image.to(device), torch.randint(0, CLASSES, (batch,), generator=generator).to(device)


if __name__ == "__main__":
    programs = [*variants("timm", theirs, peer=True), *variants("ours", ours, peer=False)]
    run(f"ViT-B/16 fine-tuning step, 224 px, batch {BATCH}", programs, rounds=7)
