"""A step of MAE pre-training (forward, backward, AdamW) against transformers' ViTMAE, at two sizes.

python perf/mae_step.py [--rounds N] [--quick]
"""

from collections.abc import Callable
from functools import partial

import torch
from harness import Step, Switches, run, variants
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from backbones.config import FAMILY, ViTConfig
from backbones.sources import huggingface
from backbones.sources.source import DECODER
from backbones.vit import ViT
from pretraining.mae.model import MaskedAutoencoder

SMALL = ViTConfig(embed_dim=192, depth=12, num_heads=3, patch_size=8, image_size=(96, 96))
DECODER_OF = {192: (128, 4, 4), 768: (512, 8, 16)}  # by width of the encoder: width, blocks, heads


def peer(a: ViTConfig) -> ViTMAEForPreTraining:
    width, depth, heads = DECODER_OF[a.embed_dim]
    torch.manual_seed(0)
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=a.embed_dim,
            num_hidden_layers=a.depth,
            num_attention_heads=a.num_heads,
            intermediate_size=4 * a.embed_dim,
            image_size=a.image_size[0],
            patch_size=a.patch_size,
            decoder_hidden_size=width,
            decoder_num_hidden_layers=depth,
            decoder_num_attention_heads=heads,
            decoder_intermediate_size=4 * width,
            norm_pix_loss=True,
            layer_norm_eps=1e-6,
        )
    )


def theirs(a: ViTConfig, batch: int) -> Step:
    model = peer(a)
    image, noise = data(a, batch)
    return step_of(model, lambda: model(image, noise=noise).loss)


def ours(a: ViTConfig, batch: int) -> Step:
    width, depth, heads = DECODER_OF[a.embed_dim]
    encoder = ViT(a, train_position=False)
    model = MaskedAutoencoder(
        encoder, mask_ratio=0.75, decoder_dim=width, decoder_depth=depth, decoder_heads=heads, normalise_target=True
    )
    state = huggingface.SOURCE.rename(peer(a).state_dict()).state
    model.load_state_dict({name if DECODER.fullmatch(name) else f"encoder.{name}": t for name, t in state.items()})
    image, noise = data(a, batch)
    return step_of(model, lambda: model((image, noise, []))["reconstruction"])


def step_of(model: nn.Module, loss_of: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step(switches: Switches) -> float:
        optimizer.param_groups[0]["fused"] = switches != "fp32"  # as our training loop has it
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def data(a: ViTConfig, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *a.image_size, generator=generator)
    return image, torch.rand(batch, a.grid[0] * a.grid[1], generator=generator)


if __name__ == "__main__":
    for title, architecture, batch in (
        ("MAE step, ViT-B/16, 224 px, batch 8", FAMILY["vit_base_patch16"], 8),
        ("MAE step, width 192, depth 12, patch 8, 96 px, batch 64", SMALL, 64),
    ):
        theirs_step, our_step = partial(theirs, architecture, batch), partial(ours, architecture, batch)
        programs = [*variants("transformers", theirs_step, peer=True), *variants("ours", our_step, peer=False)]
        run(title, programs, rounds=7)
