"""The discrete VAE: its schedule and divergence by hand, what learns, its data, metrics and file."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import RANDOM
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.records.results_file import ImageResult
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import read_tokenizer
from pretraining.tokenizer.model import DiscreteVAE, temperature, uniform_divergence
from pretraining.tokenizer.task import DVAETask, build_task

CONFIG = DVAEConfig(
    image_size=(16, 24),
    vocabulary=8,
    downsampling=4,
    code_dim=5,
    width=6,
    run=RunConfig(
        length=Duration(10),
        batch_size=4,
        accumulate=2,
        optim=OptimConfig(base_lr=1e-3, base_batch_size=4),
        schedule=ScheduleConfig(),
    ),
)


def small(**changes: float) -> DiscreteVAE:
    torch.manual_seed(0)
    return DiscreteVAE(vocabulary=8, downsampling=4, code_dim=5, width=6, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("passed", "expected"),
    # half a cosine from 1 to 0.2: 0.2 + 0.8 * (1 + cos(pi * passed / 8)) / 2
    [(0, 1.0), (2, 0.2 + 0.4 * (1 + math.sqrt(0.5))), (4, 0.6), (8, 0.2), (100, 0.2)],
)
def test_temperature_by_hand(passed: int, expected: float) -> None:
    # float32
    assert float(temperature(torch.tensor(passed), over=8, first=1.0, last=0.2)) == pytest.approx(expected, rel=1e-6)


def test_divergence_by_hand() -> None:
    # one place sure of one of four tokens: log 4; one that knows nothing: 0; one torn between two: log 2
    logits = torch.zeros(1, 4, 1, 3)
    logits[0, 0, 0, 0] = 100.0
    logits[0, :2, 0, 2] = 100.0
    assert float(uniform_divergence(logits)) == pytest.approx((math.log(4) + 0 + math.log(2)) / 3, rel=1e-6)


def test_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(kl_weight=0.5)
    for layer in (model.encoder[-1], model.decoder[-1]):
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    bias = model.encoder[-1].bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        bias[:4] = 100.0  # every place is torn between four of the eight tokens
    losses = model((torch.full((2, 3, 8, 8), 0.75), ["a", "b"]))
    # pixels of 0.75 are 0.5 to the encoder, the decoder says 0
    assert float(losses["reconstruction"].detach()) == pytest.approx(0.25)
    assert float(losses["kl"].detach()) == pytest.approx(0.5 * math.log(2), rel=1e-6)


def test_only_training_moves_the_temperature() -> None:
    model = small()
    batch = (torch.rand(2, 3, 8, 8), ["a", "b"])
    model.eval()(batch)
    assert model.passed == 0
    model.train()(batch)
    model(batch)
    assert model.passed == 2
    again = small()
    again.load_state_dict(model.state_dict())  # as a run resumes
    assert again.passed == 2


def test_a_low_temperature_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = nn.functional.gumbel_softmax

    def keep(logits: Tensor, **options: object) -> Tensor:
        seen.append(original(logits, **options))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(nn.functional, "gumbel_softmax", keep)
    model = small(temperatures=(1.0, 0.01), anneal_passes=1)  # type: ignore[arg-type]
    batch = (torch.rand(4, 3, 16, 16), ["a", "b", "c", "d"])
    model(batch)
    model(batch)
    soft, hard = (weights.amax(dim=1).mean() for weights in seen)
    assert soft < 0.6 and hard > 0.9
    for weights in seen:
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, 4, 4))  # float32


def test_everything_learns() -> None:
    model = small(kl_weight=1e-3)
    losses = model((torch.rand(2, 3, 16, 16), ["a", "b"]))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_it_learns_two_colours() -> None:
    """A vocabulary of two tokens suffices for images of two flat colours, and each gets its own."""
    torch.manual_seed(0)
    model = DiscreteVAE(vocabulary=2, downsampling=2, code_dim=4, width=8, anneal_passes=100)
    red, blue = (torch.tensor(c).view(1, 3, 1, 1).expand(4, 3, 8, 8) for c in ((0.9, 0.1, 0.2), (0.1, 0.3, 0.8)))
    pixels = torch.cat([red, blue])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model((pixels, []))["reconstruction"].backward()
        optimizer.step()
    tokens = model.tokens(pixels)
    assert len(tokens[:4].unique()) == len(tokens[4:].unique()) == 1 and tokens[0, 0, 0] != tokens[4, 0, 0]
    error = (model.decode(tokens) - pixels).detach().abs().mean()
    assert error < 0.05  # of colours that differ by 0.8


def test_task(data: Path, tmp_path: Path) -> None:
    task = build_task(CONFIG, data=data, init=None)
    assert (task.facts.train_images, task.facts.val_images, task.facts.weights) == (6, 4, RANDOM)
    assert task.facts.architecture["vocabulary"] == 8 and task.facts.flops_per_image
    assert (task.model.anneal_passes, int(task.model.passed)) == (15, 0)  # 0.75 of ten steps of two micro-batches
    batch = task.collate([task.val_data[i] for i in range(4)])
    assert batch[0].shape == (4, 3, 16, 24) and batch[1][:2] == ["cat/0.png", "cat/1.png"]
    pixels = task.model.scale(batch[0])
    assert pixels.min() >= 0 and pixels.max() <= 1 and 0.4 < pixels.mean() < 0.6
    task.model.eval()
    with torch.no_grad():
        results = task.predict(batch)
    assert [len(r.values["tokens"]) for r in results] == [24] * 4
    expected = (task.model.decode(task.model.tokens(pixels)) - pixels).detach().square().mean()
    metrics = task.score(results)
    assert metrics["val_mse"] == pytest.approx(float(expected), rel=1e-5)
    paths = [*task.draw(results, tmp_path), *task.finish(tmp_path)]
    assert [p.name for p in paths] == ["reconstructions.png", "codebook.png", "tokenizer.safetensors"]
    tokenizer = read_tokenizer(paths[2])
    assert torch.equal(tokenizer.tokens(batch[0]), task.model.tokens(batch[0]))
    assert tokenizer.header.image_size == (16, 24)


def test_codebook_by_hand(data: Path) -> None:
    task = build_task(CONFIG, data=data, init=None)

    def score(*tokens: list[int]) -> dict[str, float]:
        return task.score([ImageResult(str(i), {"mse": 0.5, "tokens": t}) for i, t in enumerate(tokens)])

    assert score([3, 3, 3, 3]) == {"val_mse": 0.5, "codebook_used": 12.5, "codebook_perplexity": 1.0}
    even = score([0, 1], [2, 3])
    assert even["codebook_used"] == 50.0 and even["codebook_perplexity"] == pytest.approx(4)
    # shares 1/2, 1/4, 1/4: an entropy of 1.5 log 2
    assert score([7, 7], [1, 2])["codebook_perplexity"] == pytest.approx(2**1.5)
    with pytest.raises(ValueError, match="no image of split val could be evaluated"):
        score()


def groups_by_decay(task: DVAETask) -> dict[float, set[str]]:
    return {g.weight_decay: set(g.names) for g in task.param_groups(CONFIG.run.optim)}


def test_weight_decay(data: Path) -> None:
    task = build_task(CONFIG, data=data, init=None)
    groups = groups_by_decay(task)
    assert set.union(*groups.values()) == {name for name, _ in task.model.named_parameters()}
    assert all(name.endswith("bias") for name in groups[0.0]) and "codebook" in groups[0.05]
    with pytest.raises(ValueError, match=r"layer_decay is 0\.5; a tokenizer has no layers of a ViT"):
        task.param_groups(replace(CONFIG.run.optim, layer_decay=0.5))


def test_refused(data: Path) -> None:
    with pytest.raises(ValueError, match=r"w\.safetensors: a tokenizer starts from random weights; drop --init"):
        build_task(CONFIG, data=data, init=InitialWeights(path=Path("w.safetensors")))
    for changes, message in (
        ({"image_size": (16, 30)}, "an image of 16 x 30 pixels is no multiple of the 4 pixels of a token; the nearest "
         "is 16 x 32."),
        ({"downsampling": 3}, "downsampling is 3; it must be 2, 4, 8 or another power of two."),
        ({"vocabulary": 1}, "vocabulary is 1; it must be at least 2."),
        ({"temperatures": (0.5, 1.0)}, "temperatures (0.5, 1.0) must be above 0, the first the higher."),
        ({"anneal": 0.0}, "anneal is 0.0; it is a share of the run"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0; it must not be negative."),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            replace(CONFIG, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an image of 10 x 12 pixels is no multiple of the 4 pixels of a token"):
        small().tokens(torch.rand(1, 3, 10, 12))
