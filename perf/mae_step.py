"""A step of MAE pre-training (forward, backward, AdamW) against transformers' ViTMAE, at two sizes.

python perf/mae_step.py [--rounds N] [--quick]
"""

from functools import partial

import torch
from harness import CPU, Step, run, training_step, variants
from mae_alone import DECODER_OF, SMALL, autoencoder, data, step_of
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from backbones.config import FAMILY, ViTConfig
from backbones.sources import huggingface
from backbones.sources.source import DECODER


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


def theirs(a: ViTConfig, batch: int, device: torch.device = CPU) -> Step:
    model = peer(a).to(device)
    image, noise = data(a, batch, device)
    return training_step(model, lambda: model(image, noise=noise).loss)


def ours(a: ViTConfig, batch: int, device: torch.device = CPU) -> Step:
    model = autoencoder(a)
    state = huggingface.SOURCE.rename(peer(a).state_dict()).state
    model.load_state_dict({name if DECODER.fullmatch(name) else f"encoder.{name}": t for name, t in state.items()})
    return step_of(model.to(device), batch)


if __name__ == "__main__":
    for title, architecture, batch in (
        ("MAE step, ViT-B/16, 224 px, batch 8", FAMILY["vit_base_patch16"], 8),
        ("MAE step, width 192, depth 12, patch 8, 96 px, batch 64", SMALL, 64),
    ):
        theirs_step, our_step = partial(theirs, architecture, batch), partial(ours, architecture, batch)
        programs = [*variants("transformers", theirs_step, peer=True), *variants("ours", our_step, peer=False)]
        run(title, programs, rounds=7)
