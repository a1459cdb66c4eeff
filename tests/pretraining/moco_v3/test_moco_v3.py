"""MoCo v3: the loss by hand and against the official one's lines, the momentum encoder, the views, and the task."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from pretraining.moco_v3.model import MoCoV3, contrast, initialise_encoder, momentum_at
from pretraining.moco_v3.views import Blur, views

IDENTITY = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def model(*, freeze_patches: bool = True) -> MoCoV3:
    torch.manual_seed(0)
    encoder = ViT(TINY, train_position=False)
    initialise_encoder(encoder)
    return MoCoV3(
        encoder,
        hidden=24,
        width=8,
        temperature=0.2,
        freeze_patches=freeze_patches,
    )


def test_contrast_by_hand() -> None:
    # the length of a vector does not matter; cosines 1 and 0.6 for the first query, 0 and 0.8 for the second
    queries = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    keys = torch.tensor([[3.0, 0.0], [0.6, 0.8]])
    losses = contrast(queries, keys, 0.5)
    by_hand = [
        -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0.6 / 0.5))),
        -math.log(math.exp(0.8 / 0.5) / (math.exp(0 / 0.5) + math.exp(0.8 / 0.5))),
    ]
    assert losses.tolist() == pytest.approx([2 * 0.5 * value for value in by_hand])
    # the second process of two: its only query belongs to the key after the first process's
    assert contrast(queries[1:], keys, 0.5, first=1).tolist() == pytest.approx([by_hand[1]])


def test_without_any_difference_the_loss_is_that_of_guessing() -> None:
    same = torch.ones(7, 4)
    assert contrast(same, same, 0.2).tolist() == pytest.approx([2 * 0.2 * math.log(7)] * 7)


def test_contrast_is_in_float32_under_autocast() -> None:
    queries, keys = torch.randn(4, 8), torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrast(queries, keys, 0.2), contrast(queries, keys, 0.2).float())
        made = contrast(queries, keys, 0.2)
    assert torch.equal(made, contrast(queries, keys, 0.2))


def test_momentum_by_hand() -> None:
    at = [momentum_at(step, total=100, first=0.99) for step in (0, 25, 50)]
    assert at == pytest.approx([0.99, 1 - 0.01 * (1 + 0.5**0.5) / 2, 0.995])  # half of the way to 1 at half of the run
    assert momentum_at(100, total=100, first=0.99) == 1.0


def official_mlp(ours: nn.Module) -> nn.Sequential:
    """`_build_mlp` of moco/builder.py, with the weights of ours."""
    parts: list[nn.Module] = []
    linear = [m for m in ours.modules() if isinstance(m, nn.Linear)]
    for number, layer in enumerate(linear):
        parts.append(nn.Linear(layer.in_features, layer.out_features, bias=False))
        last = number == len(linear) - 1
        parts.append(nn.BatchNorm1d(layer.out_features, affine=not last))
        parts += [] if last else [nn.ReLU(inplace=True)]
    made = nn.Sequential(*parts)
    made.load_state_dict(ours.state_dict())
    return made.to(linear[0].weight.dtype)


def official_loss(q: Tensor, k: Tensor, T: float) -> Tensor:
    """`contrastive_loss` of moco/builder.py in one process."""
    q, k = nn.functional.normalize(q, dim=1), nn.functional.normalize(k, dim=1)
    logits = torch.einsum("nc,mc->nm", [q, k]) / T
    return nn.CrossEntropyLoss()(logits, torch.arange(logits.shape[0])) * (2 * T)


class OfficialMoCo(nn.Module):
    """`forward` of moco/builder.py on copies of our parts."""

    def __init__(self, ours: MoCoV3) -> None:
        super().__init__()
        self.encoder, self.m_encoder = copy.deepcopy(ours.base.encoder), copy.deepcopy(ours.momentum.encoder)
        self.head, self.m_head = official_mlp(ours.base.head), official_mlp(ours.momentum.head)
        self.predictor = official_mlp(ours.predictor)

    def forward(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        q1 = self.predictor(self.head(self.encoder(x1)[:, 0]))
        q2 = self.predictor(self.head(self.encoder(x2)[:, 0]))
        with torch.no_grad():
            pairs = [(self.encoder, self.m_encoder), (self.head, self.m_head)]
            for base, momentum in pairs:
                for param_b, param_m in zip(base.parameters(), momentum.parameters(), strict=True):
                    param_m.data = param_m.data * m + param_b.data * (1.0 - m)
            k1 = self.m_head(self.m_encoder(x1)[:, 0])
            k2 = self.m_head(self.m_encoder(x2)[:, 0])
        return official_loss(q1, k2, 0.2) + official_loss(q2, k1, 0.2)


def test_three_steps_equal_the_official_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    # ours takes cosines in float32 whatever the weights are; kept in float64 here to compare closely
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    ours = model().double()
    theirs = OfficialMoCo(ours)
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.5) for m in (ours, theirs)]
    for step in range(3):
        first, second = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64)
        m = 1.0 - 0.5 * (1.0 + math.cos(math.pi * step / 4)) * (1.0 - 0.9)  # adjust_moco_momentum
        if step:  # after the step before; theirs follows in the forward pass, at step 0 from equal weights
            ours.follow(momentum_at(step, total=4, first=0.9))
        losses = [ours((first, second, [])), {"contrast": theirs(first, second, m)}]
        assert losses[0]["contrast"].item() == pytest.approx(losses[1]["contrast"].item(), rel=1e-9)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss["contrast"].backward()
            optimizer.step()
    for mine, other in (
        (ours.base.encoder, theirs.encoder),
        (ours.momentum.encoder, theirs.m_encoder),
        (ours.base.head, theirs.head),
        (ours.momentum.head, theirs.m_head),
        (ours.predictor, theirs.predictor),
    ):
        expected = other.state_dict()
        for name, value in mine.state_dict().items():  # running statistics too
            torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9, msg=name)


def test_equal_branches_stay_equal_bit_for_bit() -> None:
    """Which is why the first keys are those of MoCo v3's code, whose branch follows before it makes them."""
    ours = model()
    for kept in (0.01, 0.99):
        ours.follow(kept)
        assert all(torch.equal(a, b) for a, b in zip(ours.base.parameters(), ours.momentum.parameters(), strict=True))


@pytest.mark.parametrize("freeze", [True, False])
def test_gradients(freeze: bool) -> None:
    ours = model(freeze_patches=freeze)
    ours((torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), []))["contrast"].backward()
    fixed = {"encoder.pos_embed", *(["encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"] * freeze)}
    for name, parameter in ours.base.named_parameters():
        assert (parameter.grad is None) == (name in fixed), name
    assert all(p.grad is not None for p in ours.predictor.parameters())
    assert all(p.grad is None and not p.requires_grad for p in ours.momentum.parameters())


def test_initial_weights_by_their_bounds() -> None:
    encoder = ViT(ViTConfig(embed_dim=64, depth=1, num_heads=2, patch_size=8, image_size=(32, 32)))
    initialise_encoder(encoder)
    qkv = encoder.get_parameter("blocks.0.attn.qkv.weight")
    assert float(qkv.detach().abs().max()) == pytest.approx(math.sqrt(6 / 128), rel=0.01)  # each a matrix of 64 by 64
    patches = encoder.get_parameter("patch_embed.proj.weight")
    assert float(patches.detach().abs().max()) == pytest.approx(math.sqrt(6 / (3 * 8 * 8 + 64)), rel=0.01)
    assert 0 < float(encoder.get_parameter("cls_token").detach().abs().max()) < 1e-5


def test_views_differ_as_stated() -> None:
    first, second = views((8, 8), IDENTITY, changes="byol", scale=(0.5, 1.0), blur=(0.1, 0.6))
    white = Image.new("RGB", (16, 16), (255, 255, 255))
    torch.manual_seed(0)
    # jitter leaves at least 0.6 of white, which solarising turns below half
    shares = [sum(float(view(white).mean()) < 0.5 for _ in range(1000)) / 1000 for view in (first, second)]
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.2, abs=0.04)  # three deviations


def test_shares_of_the_colour_changes() -> None:
    first, second = views((4, 4), IDENTITY, changes="byol", scale=(1.0, 1.0), blur=(0.1, 0.6))
    flat = Image.new("RGB", (4, 4), (100, 60, 40))  # blur and flip leave it as it is, and so does solarising
    torch.manual_seed(0)
    for view in (first, second):
        pixels = torch.stack([view(flat)[:, 0, 0] for _ in range(1000)])
        grey = (pixels == pixels[:, :1]).all(dim=1)
        same = torch.isclose(pixels * 255, torch.tensor([100.0, 60.0, 40.0])).all(dim=1)
        assert float(grey.float().mean()) == pytest.approx(0.2, abs=0.04)  # three deviations
        assert float(same.float().mean()) == pytest.approx(0.2 * 0.8, abs=0.035)  # neither jittered nor grey


def test_the_first_view_is_always_blurred() -> None:
    first, second = views((8, 8), IDENTITY, changes="byol", scale=(1.0, 1.0), blur=(2.0, 2.0))
    board = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    torch.manual_seed(0)
    random.seed(0)  # the blur draws from Python's
    blurred = [sum(float(view(board).std()) < 0.05 for _ in range(300)) / 300 for view in (first, second)]
    assert blurred[0] == 1.0
    assert 0.02 < blurred[1] < 0.4  # a tenth; solarising makes a flat image of some more


def test_views_of_the_crop_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    torch.manual_seed(0)
    for view in views((8, 8), IDENTITY, changes="crop", scale=(1.0, 1.0), blur=(0.1, 0.6)):
        made = [view(Image.fromarray(pixels)) for _ in range(50)]  # no other part of a square has its whole area
        mirrored = [torch.allclose(image, whole.flip(2)) for image in made]
        assert all(turned or torch.allclose(image, whole) for turned, image in zip(mirrored, made, strict=True))
        assert set(mirrored) == {True, False}


@pytest.mark.parametrize(("probability", "share"), [(1.0, 1.0), (0.1, 0.1)])
def test_blur(probability: float, share: float) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    blur = Blur(probability, (0.5, 0.5))
    blurred = sum(blur(noisy).tobytes() != noisy.tobytes() for _ in range(1000)) / 1000
    assert blurred == pytest.approx(share, abs=0.03)
