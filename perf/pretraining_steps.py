"""A step of BEiT and of MoCo v3 (forward, backward, AdamW) beside MAE's, and MAE's at five mask ratios.

python perf/pretraining_steps.py [--rounds N] [--quick]

ViT-B/16 at 224 px, batch 8, with each method's published recipe: a round of both tables is estimated at a minute and a
half on two cores. BEiT's step makes its tokens too, with a tokenizer of this project of DALL-E's vocabulary (DALL-E's
own encoder is larger); MoCo v3's sees two views of every image and moves the momentum encoder. Loading is left out. The
peer of the first table is MAE, of the second MAE at the paper's ratio; the loss there is of all patches, as with none
masked there is no other. The value is the number of images of a step, the same in all programs.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from harness import SETTINGS, Step, Switches, Variant, fuse, run
from torch import Tensor, nn

from pretraining.moco_v3.model import MoCoV3
from pretraining.plan import builder
from pretraining.recipes import RECIPES

BATCH = 8
RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)
PATCHES, MASKED_BY_BEIT = 196, 75
PUBLISHED_RATIO = 0.75


def mae() -> Step:
    """Return MAE's step at its own mask ratio."""
    model, noise = built("mae_base"), torch.rand(BATCH, PATCHES, generator=generator())
    return step_of(model, lambda: model((images(224), noise, []))["reconstruction"])


def beit() -> Step:
    """Return BEiT's step, its tokenizer's included."""
    model = built("beit_base")
    mask = torch.rand(BATCH, PATCHES, generator=generator()).argsort(dim=1) < MASKED_BY_BEIT
    pixels = images(112).sigmoid()
    return step_of(model, lambda: model((images(224), pixels, mask, []))["cross_entropy"])


def moco_v3() -> Step:
    """Return MoCo v3's step, the momentum encoder's included."""
    model = built("moco_v3_base")
    assert isinstance(model, MoCoV3)
    return step_of(model, lambda: model((images(224), images(224).flip(3), []))["contrast"], lambda: model.follow(0.99))


def mae_at(ratio: float) -> Step:
    """Return MAE's step at a mask ratio."""
    model, step = mae_of_all()
    kept = int(PATCHES * (1 - ratio))

    def at(switches: Switches) -> float:
        model.kept = kept  # type: ignore[assignment]
        return step(switches)

    return at


@cache
def mae_of_all() -> tuple[nn.Module, Step]:
    """Return one model and optimiser for all ratios: its memory is needed once."""
    model, noise = built("mae_base", loss_on="all"), torch.rand(BATCH, PATCHES, generator=generator())
    return model, step_of(model, lambda: model((images(224), noise, []))["reconstruction"])


def built(recipe: str, **changes: object) -> nn.Module:
    """Return a recipe's model, in training mode."""
    torch.manual_seed(0)
    config = RECIPES[recipe]()
    return builder(type(config)(**{**vars(config), **changes}))().model.train()


@cache
def images(side: int) -> Tensor:
    """Return the images of every step."""
    return torch.randn(BATCH, 3, side, side, generator=generator())


def generator() -> torch.Generator:
    """Return random numbers that are the same everywhere."""
    return torch.Generator().manual_seed(1)


def step_of(model: nn.Module, loss_of: Callable[[], Tensor], after: Callable[[], None] = lambda: None) -> Step:
    """Return a training step, whose number is that of its images. Raises ValueError where the loss is not finite."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step(switches: Switches) -> float:
        fuse(optimizer, switches)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()}; a step on such numbers says nothing.")
        loss.backward()
        optimizer.step()
        after()
        return float(BATCH)

    return step


def two(name: str, build: Callable[[], Step], *, peer: bool) -> list[Variant]:
    """Return the program in float32 and in bfloat16."""
    return [
        Variant(name=name, peer=peer, switches=switches, build=build) for switches in SETTINGS if switches != "onednn"
    ]


if __name__ == "__main__":
    methods = [*two("MAE", mae, peer=True), *two("BEiT", beit, peer=False), *two("MoCo v3", moco_v3, peer=False)]
    run("Step of each method, ViT-B/16, 224 px, batch 8", methods, rounds=5, images=BATCH)
    builds = {ratio: partial(mae_at, ratio) for ratio in RATIOS}
    by_ratio = [
        variant
        for ratio, build in builds.items()
        for variant in two(f"MAE, {ratio:.0%} masked", build, peer=ratio == PUBLISHED_RATIO)
    ]
    run("MAE step by mask ratio, ViT-B/16, 224 px, batch 8", by_ratio, rounds=5, images=BATCH)
