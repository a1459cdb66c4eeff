"""The planner: bytes and MACs by hand, fake against real tensors, what fits."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from backbones.attention import gpu_kernels, matmul_attention
from backbones.config import ViTConfig
from backbones.vit import ViT
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.cost import count_flops, count_parameters
from engine.memory.live import LiveMemory
from engine.memory.plan import Plannable, fit_into, footprint
from engine.memory.report import Devices, lines

RUN = RunConfig(length=Duration(10), batch_size=16, optim=OptimConfig(base_lr=0.1), schedule=ScheduleConfig())
TINY = ViTConfig(embed_dim=32, depth=3, num_heads=2, patch_size=8, image_size=(32, 32))
MANY = 1024**3


def _linear(run: RunConfig = RUN) -> Callable[[], Plannable]:
    def build() -> Plannable:
        model = nn.Linear(1000, 500, bias=False)
        return Plannable(model=model, run=run, loss=lambda images: model(torch.zeros(images, 1000)).sum())

    return build


def _vit(run: RunConfig = RUN) -> Callable[[], Plannable]:
    def build() -> Plannable:
        model = ViT(TINY)
        return Plannable(model=model, run=run, loss=lambda images: model(torch.zeros(images, 3, 32, 32)).sum())

    return build


def test_a_linear_layer_by_hand() -> None:
    found = footprint(_linear(), images=8, precision="32-true")
    matrix = 4 * 1000 * 500
    assert (found.parameters, found.trained) == (500_000, 500_000)
    step_number = 4
    assert (found.weights, found.gradients, found.ema) == (matrix, matrix, 0)
    assert found.moments == 2 * matrix + step_number
    # the input is kept for the gradient of the weights; the loss is a number
    assert 4 * 8 * 1000 <= found.activations <= 4 * 8 * 1000 + 64
    assert found.forward == 500_000  # one multiply-add per weight and image
    assert found.training == 2 * 500_000  # no gradient is asked of the input
    # weights, gradients, moments; the step number, input, result and loss are small beside them
    assert 4 * matrix < found.peak < 4 * matrix + 2 * 4 * 8 * (1000 + 500)


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (4, False), (1, True)])
def test_a_convolution_by_hand(groups: int, transposed: bool) -> None:
    """Forward, gradient of the input and gradient of the weights: each the kernel over every place of the small map."""

    def build() -> Plannable:
        first = nn.Conv2d(8, 8, 1, bias=False)  # so that the input's gradient is wanted
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        second = kind(8, 8, 2, stride=2, groups=groups, bias=False)
        model = nn.Sequential(first, second)
        return Plannable(model=model, run=RUN, loss=lambda images: model(torch.zeros(images, 8, 6, 6)).sum())

    found = footprint(build, images=4, precision="32-true")
    first, second = 8 * 8 * 6 * 6, 8 * (8 // groups) * 2 * 2 * (6 * 6 if transposed else 3 * 3)
    assert found.forward == first + second
    assert found.training == 2 * first + 3 * second


def test_ema_and_shards_are_counted() -> None:
    found = footprint(_linear(replace(RUN, ema_decay=0.9)), images=1, precision="32-true")
    assert found.ema == 4 * 500_000
    assert found.on_each_of(1) == found.peak
    states = 5 * 4 * 500_000 + 4  # five matrices and AdamW's step number
    assert found.peak - found.on_each_of(5) == states - states // 5


def _measured(images: int, *, saving: bool) -> tuple[int, int]:
    """Return what really lives after a forward pass more than before, and at the peak of two steps."""
    model = ViT(TINY, activation_checkpointing=saving)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    memory = LiveMemory()
    memory.hold(model.parameters())
    with memory:
        for _ in range(2):
            before = memory.live
            loss = model(torch.zeros(images, 3, 32, 32)).sum()
            activations = memory.live - before
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            del loss
    return activations, memory.peak


@pytest.mark.parametrize("saving", [False, True])
def test_fake_tensors_count_as_real_ones_do(saving: bool) -> None:
    found = footprint(_vit(replace(RUN, activation_checkpointing=saving)), images=64, precision="32-true")
    model = ViT(TINY)
    assert found.parameters == count_parameters(model)
    assert found.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (found.activations, found.peak) == _measured(64, saving=saving)


def test_macs_are_fvcores_without_norms() -> None:
    """fvcore counts layer norms too, 5 per element: 7 norms of 17 x 32."""
    norms = 7 * 5 * 17 * 32
    with torch.no_grad():
        assert footprint_forward() == count_flops(ViT(TINY), torch.zeros(1, 3, 32, 32)) - norms


def footprint_forward() -> int:
    with torch.enable_grad():
        return footprint(_vit(), images=1, precision="32-true").forward


def test_checkpointing_and_bfloat16_need_less() -> None:
    plain = footprint(_vit(), images=64, precision="32-true")
    assert footprint(_vit(), images=64, precision="bf16-mixed").activations < 0.75 * plain.activations
    saving = footprint(_vit(replace(RUN, activation_checkpointing=True)), images=64, precision="32-true")
    assert saving.activations < 0.4 * plain.activations and saving.peak < 0.75 * plain.peak
    assert plain.forward == saving.forward and saving.training > 1.2 * plain.training  # the blocks twice forward


def test_kernels_of_a_gpu_keep_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = footprint(_vit(), images=8, precision="32-true").activations
    with gpu_kernels():
        on_gpu = footprint(_vit(), images=8, precision="32-true").activations
    assert on_gpu < on_cpu
    works = [footprint(_vit(), images=8, precision="32-true").forward]
    with gpu_kernels():
        works.append(footprint(_vit(), images=8, precision="32-true").forward)
    assert works[0] == works[1]  # the fused kernel's products are counted too
    q = torch.randn(1, 2, 17, 16)
    with gpu_kernels():  # the same numbers
        model = ViT(TINY)
        fused = model(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(copy.deepcopy(model)(torch.ones(1, 3, 32, 32)), fused, rtol=1e-5, atol=1e-5)
    assert matmul_attention(q, q, q).shape == q.shape


def test_the_largest_equal_split_that_fits() -> None:
    needs = {n: footprint(_vit(), images=n, precision="32-true").peak for n in (2, 4, 8)}
    fit, planned = fit_into(
        _vit(), batch_size=16, memory=needs[4] + 1, devices=2, precision="32-true", shards=1, least=1
    )
    assert (fit.images, fit.accumulate, fit.footprint.peak) == (4, 2, needs[4])
    assert planned.run.batch_size == 16
    whole, _ = fit_into(_vit(), batch_size=16, memory=MANY, devices=2, precision="32-true", shards=1, least=1)
    assert (whole.images, whole.accumulate) == (8, 1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 image\(s\) need .* GiB of a device.*--activation-checkpointing"):
        fit_into(_vit(), batch_size=16, memory=1000, devices=2, precision="32-true", shards=1, least=2)
    with pytest.raises(ValueError, match="a batch of 16 images cannot be shared by 3 devices"):
        fit_into(_vit(), batch_size=16, memory=MANY, devices=3, precision="32-true", shards=1, least=1)


def test_hours_by_hand() -> None:
    fit, planned = fit_into(_linear(), batch_size=16, memory=MANY, devices=2, precision="32-true", shards=1, least=1)
    devices = Devices(gpus=2, memory=MANY, precision="32-true", tflops=1e-6, utilisation=0.5)
    # 160 images x 1e6 MACs x 2 operations / (2 GPUs x 1e6 x 0.5 per second) = 320 s
    assert any("10 steps, 160 samples seen: 0.1 hours, 0 GPU-hours" in one for one in told(planned, fit, devices))
    unknown = Devices(gpus=2, memory=MANY, precision="32-true", tflops=None, utilisation=0.5)
    assert "hours need the rate of a GPU (--tflops)" in told(planned, fit, unknown)[-1]
    epochs = Plannable(model=planned.model, run=replace(RUN, length=Duration(3, "epochs")), loss=planned.loss)
    assert "hours need the size of the training set (--images)" in told(epochs, fit, devices)[-1]


def told(planned: Plannable, fit: object, devices: Devices) -> list[str]:
    return lines(planned, fit, devices, images=None, shards=1)  # type: ignore[arg-type]


def test_live_memory_follows_tensors() -> None:
    memory = LiveMemory()
    with memory:
        a: Tensor | None = torch.zeros(256)
        b = torch.ones(256)
        assert memory.live == 2048
        view = b[:10]
        assert memory.live == 2048 and view.shape == (10,)  # no storage of its own
        del a
        assert memory.live == 1024
    assert memory.peak == 2048
