"""The classifier: its head, its loss by hand, and who gets a gradient."""

import math

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup

from backbones.config import ViTConfig
from backbones.vit import ViT
from classification.heads import Classifier

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def classifier(*, smoothing: float = 0.0, mixup: Mixup | None = None, pretraining: bool = False) -> Classifier:
    backbone = ViT(TINY, final_norm=pretraining, train_position=not pretraining)
    return Classifier(backbone, num_classes=3, head_std=0.02, label_smoothing=smoothing, mixup=mixup)


def test_head_by_hand() -> None:
    model = classifier().eval()
    image = torch.randn(2, 3, 32, 32)
    pooled = model.backbone(image)[:, 1:].mean(dim=1)  # the class token is left out
    centred = pooled - pooled.mean(dim=1, keepdim=True)
    normed = centred / (pooled.var(dim=1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    expected = normed @ model.head.weight.T
    # float32, a sum of 16 numbers of about 1
    torch.testing.assert_close(model.logits(image), expected, rtol=1e-5, atol=1e-6)


def test_initial_head() -> None:
    head = Classifier(ViT(TINY), num_classes=1000, head_std=2e-5, label_smoothing=0.0).head
    assert not head.bias.any()
    # 16,000 numbers: their std is within 2 % of the true one (3.6 standard errors)
    assert float(head.weight.detach().std()) == pytest.approx(2e-5, rel=0.02)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_by_hand(smoothing: float) -> None:
    model = classifier(smoothing=smoothing)
    torch.nn.init.zeros_(model.head.weight)
    logits = [1.0, 2.0, 4.0]
    model.head.bias.data = torch.tensor(logits)
    log_total = math.log(sum(math.exp(v) for v in logits))
    # images of labels 2 and 0: 1 - s on the label, s / 3 on every class
    by_hand = [
        -sum((smoothing / 3 + (1 - smoothing) * (k == label)) * (v - log_total) for k, v in enumerate(logits))
        for label in (2, 0)
    ]
    losses = model((torch.randn(2, 3, 32, 32), torch.tensor([2, 0]), ["a", "b"]))
    assert list(losses) == ["cross_entropy"]
    assert losses["cross_entropy"].item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)  # float32


def test_mixup_by_hand() -> None:
    class Halves(Mixup):
        """Mixes half and half instead of by a random share."""

        def _params_per_batch(self) -> tuple[float, bool]:
            return 0.5, False

    model = classifier(mixup=Halves(mixup_alpha=1.0, label_smoothing=0.0, num_classes=3))
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([2, 0])
    log_p = model.logits(images.mean(dim=0, keepdim=True)).log_softmax(dim=1)[0].detach()
    loss = model((images.clone(), labels, ["a", "b"]))["cross_entropy"]
    # both images are the same mixture, with half of each label; float32
    assert loss.item() == pytest.approx(-0.5 * float(log_p[0] + log_p[2]), rel=1e-5)


def test_mixup_draws_from_numpy() -> None:
    model = classifier(mixup=Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=3))
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 1, 1])
    losses = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        losses.append(model((images.clone(), labels, ["a"] * 4))["cross_entropy"])
    assert all(loss.isfinite() for loss in losses)
    assert losses[0] == losses[1] != losses[2]


def test_mixup_refuses_an_odd_batch() -> None:
    model = classifier(mixup=Mixup(mixup_alpha=0.8, num_classes=3))
    with pytest.raises(ValueError, match="a micro-batch of 3 images cannot be mixed in pairs; make batch_size"):
        model((torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 1]), ["a"] * 3))


def test_bfloat16_autocast() -> None:
    model = classifier(smoothing=0.1)
    batch = (torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 1, 1]), ["a"] * 4)
    exact = model(batch)["cross_entropy"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = model(batch)["cross_entropy"]
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, exact, rtol=1e-2, atol=0)  # bfloat16 keeps 8 bits, 0.4 % a number


@pytest.mark.parametrize("pretraining", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_every_trainable_parameter_gets_a_gradient(pretraining: bool, mixed: bool) -> None:
    mixup = Mixup(mixup_alpha=0.8, num_classes=3) if mixed else None
    model = classifier(pretraining=pretraining, mixup=mixup)
    model((torch.randn(2, 3, 32, 32), torch.tensor([2, 0]), ["a", "b"]))["cross_entropy"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == ({"backbone.pos_embed"} if pretraining else set())
    assert model.backbone.pos_embed.requires_grad != pretraining
