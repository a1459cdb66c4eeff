"""EoMT: annealing and losses by hand, mmseg's interface, what a checkpoint keeps, what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backbones.config import ViTConfig
from engine.config import as_json
from engine.runs.export import export_onnx
from engine.training.seeding import seed_all
from segmentation.config import HeadConfig, SegmentationConfig, SlideConfig
from segmentation.model.eomt import EoMTViT, masked_share
from segmentation.model.mask_losses import Prediction, Target, Weights, hungarian, mask_losses, per_process, targets_of
from segmentation.recipes import eomt_large_ade20k
from segmentation.task import SegmentationTask, build_task
from segmentation.trained import Labels, TrainedSegmentor
from tools import plan_run

SMALL = {"patch_size": 8, "image_size": (32, 32)}
HEAD = HeadConfig(kind="eomt", queries=5, query_blocks=2, points=16)


@pytest.fixture
def config(config: SegmentationConfig) -> SegmentationConfig:
    """Five queries in the last two of four blocks."""
    return replace(config, head=HEAD, out_indices=(3,))


@pytest.fixture
def task(config: SegmentationConfig, write_folder) -> SegmentationTask:
    seed_all(0)
    return build_task(config, data=write_folder(), init=None)


def vit(**changes: object) -> EoMTViT:
    """A tiny ViT with queries, in eval mode."""
    architecture = ViTConfig(**{"embed_dim": 16, "depth": 4, "num_heads": 2, **SMALL, **changes})
    return EoMTViT(as_json(architecture), out_indices=[3], num_classes=3, num_queries=5, query_blocks=2).eval()


def test_annealing_by_hand() -> None:
    # a sixth of the run each: of the recipe's 39,157 steps, block 20 from 6,526 to 13,052 and block 23 to 32,631
    assert [masked_share(block, 4, 0.0) for block in range(4)] == [1.0] * 4
    assert [masked_share(block, 4, 1.0) for block in range(4)] == [0.0] * 4
    assert [masked_share(block, 4, 0.25) for block in range(4)] == pytest.approx([0.5**0.9, 1, 1, 1])
    assert [masked_share(block, 4, 0.75) for block in range(4)] == pytest.approx([0, 0, 0, 0.5**0.9])
    # tue-mps/eomt, configs/dinov2/coco/panoptic/eomt_giant_640.yaml: five blocks, 12 epochs of 7,393 steps
    for block, (first, last) in enumerate(
        [(14782, 29564), (25869, 40651), (36955, 51737), (48042, 62824), (59128, 73910)]
    ):
        half = masked_share(block, 5, (first + last) / 2 / 88716)
        assert half == pytest.approx(0.5**0.9, abs=2e-3)  # theirs are rounded by up to 8 steps of 14,782
    assert masked_share(0, 1, 0.25) == pytest.approx(0.5**0.9)


def test_a_checkpoint_keeps_the_annealing(task: SegmentationTask, config: SegmentationConfig, write_folder) -> None:
    trained = task.model.backbone
    assert isinstance(trained, EoMTViT) and trained._masked == (1.0, 1.0)
    task.after_step(3, 12)
    assert trained._masked == pytest.approx((0.5**0.9, 1.0))
    fresh = vit()
    fresh.load_state_dict(trained.state_dict())
    assert fresh._masked == trained._masked
    task.after_step(12, 12)
    assert trained._masked == (0.0, 0.0) and torch.equal(trained.masked, torch.zeros(2))


def test_the_masked_share_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training a query is free of its mask where its draw is above the share; in evaluation none or all are."""
    model, logits = vit(), torch.full((2, 5, 4, 4), -1.0)
    logits[:, :, :2, :2] = 1.0
    own = torch.zeros(2, 2).bool()
    own[0, 0] = True
    masked = model._mask(logits, (2, 2), 5 + 1 + 4, 0.7)
    assert masked.shape == (2, 10, 10) and masked[:, 5:].all() and masked[:, :, :6].all()
    assert torch.equal(masked[:, :5, 6:], own.flatten().expand(2, 5, 4))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([[0.1, 0.69, 0.71, 0.9, 0.0]]).expand(2, 5))
    inside = model.train()._mask(logits, (2, 2), 10, 0.7)[:, :5, 6:]
    assert inside.all(dim=2).tolist() == [[False, False, True, True, False]] * 2
    for share, expected in ((1.0, 3), (0.5, 3), (0.49, 1), (0.0, 1)):
        model.eval()._masked = (share, share)
        assert len(model(torch.zeros(1, 3, 32, 32))) == expected


def test_costs_and_losses_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """All points in the middle of masks of one value: two queries, one true mask, of the second of two classes."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 0.5))
    class_BQC = torch.log(torch.tensor([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]]))
    mask_BQhw = torch.tensor([2.0, -1.0])[None, :, None, None].expand(1, 2, 4, 4)
    target = Target(torch.tensor([1]), torch.ones(1, 8, 8))
    weights = Weights(classes=2.0, mask=5.0, dice=5.0, no_object=0.1, points=12)
    queries, numbers = hungarian(class_BQC[0], mask_BQhw[0], target, weights)
    assert (queries.tolist(), numbers.tolist()) == ([0], [0])  # of equal classes, the one whose mask is there
    losses = mask_losses(Prediction(class_BQC, mask_BQhw, (8, 8)), [target], weights)
    # the class 1 at weight 1, `no object` at weight 0.1
    assert float(losses["loss_cls"]) == pytest.approx(2 * (-math.log(0.3) - 0.1 * math.log(0.1)) / 1.1)
    assert float(losses["loss_mask"]) == pytest.approx(5 * math.log1p(math.exp(-2)))
    share = 12 / (1 + math.exp(-2))
    assert float(losses["loss_dice"]) == pytest.approx(5 * (1 - (2 * share + 1) / (share + 12 + 1)))


def test_more_classes_than_queries() -> None:
    label = torch.arange(4).repeat_interleave(16).reshape(1, 8, 8)
    label[0, 0, 0] = 255
    (target,) = targets_of(label, 255, dtype=torch.float32)
    assert target.class_M.tolist() == [0, 1, 2, 3] and target.mask_MHW.sum(dim=(1, 2)).tolist() == [15, 16, 16, 16]
    weights = Weights(classes=2.0, mask=5.0, dice=5.0, no_object=0.1, points=12)
    queries, numbers = hungarian(torch.randn(3, 5), torch.randn(3, 4, 4), target, weights)
    assert queries.tolist() == [0, 1, 2] and len(set(numbers.tolist())) == 3


def test_masks_are_counted_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One mask here and four there: each process divides by two and a half, since DDP takes the mean of gradients."""
    assert (per_process(3, like=torch.zeros(1)), per_process(0, like=torch.zeros(1))) == (3, 1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(4))
    assert float(per_process(1, like=torch.zeros(1))) == 2.5


def test_scores_by_hand(task: SegmentationTask) -> None:
    """A class's score is the sum over the queries of its share times the mask's, and no query is for `no object`."""
    class_BQC = torch.log(torch.tensor([[[0.7, 0.2, 0.0, 0.1], [0.1, 0.1, 0.1, 0.7]]]) + 1e-30)
    mask_BQhw = torch.tensor([0.0, 100.0])[None, :, None, None].expand(1, 2, 2, 2)
    scores = task.model.segmentor.decode_head([Prediction(class_BQC, mask_BQhw, (4, 6))])
    assert scores.shape == (1, 3, 4, 6)
    torch.testing.assert_close(scores[0, :, 0, 0], torch.tensor([0.5 * 0.7 + 0.1, 0.5 * 0.2 + 0.1, 0.1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"registers": 3, "position": "learned"},
        {"rotary": "centred", "position": "none"},
        {"relative_position": "table"},
        {"relative_position": "shared_table", "position": "none"},
    ],
)
def test_queries_change_nothing_where_none_looks_at_them(changes: dict[str, object]) -> None:
    """With all queries hidden from the others, these are the tokens of the ViT without any, in every kind of ViT."""
    model, image = vit(**changes), torch.randn(2, 3, 24, 40)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        expected = model.vit(image)
        count = 5 + expected.shape[1]
        hidden = torch.ones(2, count, count).bool()
        hidden[:, 5:, :5] = False
        model._mask = lambda *_: hidden  # type: ignore[method-assign]
        found: list[Tensor] = []
        model.vit.norm.register_forward_hook(lambda _, __, output: found.append(output))
        model(image)
    # float32
    torch.testing.assert_close(found[-1][:, 5:], expected, rtol=1e-4, atol=1e-4)


def _differ(model: EoMTViT) -> None:
    """Set weights of which every query makes a class and a mask of its own."""
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=3 if name in ("query", "class_head.weight") else 0.3)
    torch.nn.init.ones_(model.vit.norm.weight)
    for bias in (model.vit.norm.bias, model.class_head.bias, model.upscale[-1].norm.bias):
        torch.nn.init.zeros_(bias)


@pytest.mark.parametrize("slide", [None, SlideConfig(stride=16)])
def test_mmseg_says_the_same(config: SegmentationConfig, write_folder, slide: SlideConfig | None) -> None:
    """mmseg's own EncoderDecoder takes the two parts as they are: its losses and its prediction are ours."""
    seed_all(0)
    task = build_task(replace(config, slide=slide), data=write_folder(), init=None)
    segmentor = task.model.segmentor
    _differ(segmentor.backbone)
    batch = task.collate([task.train_data[i] for i in range(2)])
    data = segmentor.data_preprocessor(batch, training=True)
    seed_all(3)
    expected = segmentor.loss(data["inputs"], data["data_samples"])
    seed_all(3)
    made = task.model(batch)
    assert len(made) == 9 and made.keys() == expected.keys()
    assert "decode.d0.loss_cls" in made and "decode.loss_dice" in made
    for name, value in made.items():
        assert torch.equal(value, expected[name]), name
    task.model.eval()
    images = task.collate([task.val_data[i] for i in range(2)])
    with torch.no_grad():
        found = task.model.predict(images)
        theirs = segmentor.test_step(images)
    for classes_HW, sample in zip(found, theirs, strict=True):
        assert torch.equal(classes_HW.long(), sample.pred_sem_seg.data[0])
        assert len(classes_HW.unique()) > 1


@pytest.mark.parametrize("ignored", [False, True])
def test_every_parameter_gets_a_gradient(task: SegmentationTask, ignored: bool) -> None:
    batch = task.collate([task.train_data[i] for i in range(2)])
    if ignored:  # no mask at all
        for sample in batch["data_samples"]:
            sample.gt_sem_seg.data.fill_(255)
    losses = task.model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert float(losses["decode.loss_mask"].detach() > 0) == (not ignored)


def test_scores_are_averaged_over_flips_as_they_are(task: SegmentationTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A softmax of scores from 0 to 1 would level them: here it would let the view that is less sure decide."""
    first = torch.tensor([0.50, 0.49, 0.0])[None, :, None, None]
    second = torch.tensor([0.0, 0.005, 0.9])[None, :, None, None]
    answers = iter([first, second])
    head = task.model.segmentor.decode_head
    monkeypatch.setattr(head, "forward", lambda maps: next(answers).expand(1, 3, *maps[-1].size))
    task.model.eval()
    task.model.flip = True
    (classes,) = task.model.predict(task.collate([task.val_data[0]]))
    assert classes.unique().tolist() == [2]


def test_bfloat16_has_losses_and_scores_in_float32(task: SegmentationTask) -> None:
    batch = task.collate([task.train_data[i] for i in range(2)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task.model(batch)
        task.model.eval()
        segmentor = task.model.segmentor
        scores = segmentor.decode_head(segmentor.backbone(torch.randn(1, 3, 32, 32)))
    assert {value.dtype for value in losses.values()} == {torch.float32} and scores.dtype == torch.float32
    sum(losses.values()).backward()


def test_onnx(task: SegmentationTask, config: SegmentationConfig, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    task.after_step(1, 1)
    labels = Labels(palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)), numbers=(1, 2, 3))
    trained = TrainedSegmentor(config, model=task.model.eval(), classes=task.classes, labels=labels)
    exported = export_onnx(trained.exportable(), tmp_path / "m.onnx")
    assert exported.shapes == {"logits": (1, 3, 32, 32)}


def test_it_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main(["train_seg", "tiny_eomt", "--gpus", "2", "--gpu-memory", "1", "--classes", "6"]) == 0
    printed = capsys.readouterr().out
    assert "simplified: an image has 6 classes, and the first queries are matched with them" in printed
    assert "GiB peak of a step" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_indices": (1, 3)}, r"out_indices \[1, 3\]: EoMT reads the last block alone; name 3\."),
        ({"freeze_backbone": True}, "freeze_backbone with the head eomt: .*; a head on frozen features is linear"),
        ({"head": replace(HEAD, queries=0)}, "head queries 0: EoMT needs 1 or more"),
    ],
)
def test_configurations_that_are_refused(config: SegmentationConfig, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


def test_vits_that_are_refused() -> None:
    with pytest.raises(ValueError, match="queries have no place in windows; take a ViT without them, or a head"):
        EoMTViT(
            as_json(ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32), window_size=2)),
            **{"out_indices": [3], "num_classes": 3, "num_queries": 5, "query_blocks": 2, "class_token": False},
        )
    with pytest.raises(ValueError, match="queries go through the last 5 blocks, of 4: name 1 or more of them"):
        EoMTViT(
            as_json(ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))),
            **{"out_indices": [3], "num_classes": 3, "num_queries": 5, "query_blocks": 5},
        )


def test_the_recipe_is_the_published_one() -> None:
    config = eomt_large_ade20k()
    head = config.head
    assert (head.queries, head.query_blocks, head.points) == (100, 4, 112 * 112)
    assert (head.class_weight, head.mask_weight, head.dice_weight, head.no_object_weight) == (2, 5, 5, 0.1)
    assert config.run.optim.lr(config.run.batch_size) == 1e-4
    # two doublings of patches of 16 px, one of 8 and of 14: masks of about a quarter of the image
    counts = [len(vit(patch_size=patch, image_size=(2 * patch, 2 * patch)).upscale) for patch in (16, 14, 8)]
    assert counts == [2, 1, 1]
