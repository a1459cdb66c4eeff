"""EoMT against transformers' `eomt`: of the same tiny random weights, equal logits, losses, gradients and classes."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor
from transformers.models.eomt import modeling_eomt

from backbones.config import ViTConfig
from engine.config import as_json
from segmentation.model.eomt import EoMTHead, EoMTViT
from segmentation.model.mask_losses import Prediction, Target, targets_of

CLASSES, QUERIES, BLOCKS, POINTS, SIDE, PATCH = 5, 7, 3, 24, 48, 16
# float64: sums of the same numbers in another order; transformers adds 1 to all scores that are not masked
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draws and new tensors in float64; transformers' attention too, whose softmax and mask are float32."""

    def attend(module, query, key, value, attention_mask, scaling, **_):
        scores = query @ key.transpose(2, 3) * scaling
        scores = scores if attention_mask is None else scores + attention_mask
        return (scores.softmax(dim=-1) @ value).transpose(1, 2), None

    monkeypatch.setattr(modeling_eomt, "eager_attention_forward", attend)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def theirs() -> EomtForUniversalSegmentation:
    """A model of random weights, none of which is at the value that it starts with."""
    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        num_blocks=BLOCKS,
        num_queries=QUERIES,
        num_register_tokens=2,
        num_labels=CLASSES,
        train_num_points=POINTS,
        attn_implementation="eager",
    )
    model = EomtForUniversalSegmentation(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for layer in model.upscale_block.block:  # so that masks cover a part of the image
        torch.nn.init.zeros_(layer.layernorm2d.bias)
    return model


@pytest.fixture
def ours(theirs: EomtForUniversalSegmentation) -> EoMTViT:
    """The same weights under the project's names."""
    architecture = ViTConfig(
        embed_dim=32,
        depth=4,
        num_heads=4,
        patch_size=PATCH,
        image_size=(SIDE, SIDE),
        position="learned",
        registers=2,
        layer_scale=1.0,
    )
    model = EoMTViT(
        as_json(architecture), out_indices=[3], num_classes=CLASSES, num_queries=QUERIES, query_blocks=BLOCKS
    )
    model.load_state_dict(renamed(theirs.state_dict()))
    return model


@pytest.fixture
def head() -> EoMTHead:
    return EoMTHead(CLASSES, classes=2.0, mask=5.0, dice=5.0, no_object=0.1, points=POINTS)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return transformers' tensors by our names, every one of them."""
    state = {name: value for name, value in state.items() if name != "criterion.empty_weight"}
    made = {"masked": state.pop("attn_mask_probs"), "query": state.pop("query.weight")}
    position_ND = state.pop("embeddings.position_embeddings.weight")
    still_1D = torch.zeros(1, position_ND.shape[1])  # of the class token, which has none there
    made["vit.pos_embed"] = torch.cat([still_1D, position_ND])[None]
    made["vit.cls_token"] = state.pop("embeddings.cls_token")
    made["vit.reg_token"] = state.pop("embeddings.register_tokens")
    for i in range(4):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"layers.{i}.attention.{part}_proj.{kind}") for part in "qkv"]
            made[f"vit.blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
        for number in (1, 2):
            made[f"vit.blocks.{i}.gamma_{number}"] = state.pop(f"layers.{i}.layer_scale{number}.lambda1")
    replacements = [
        ("embeddings.patch_embeddings.projection", "vit.patch_embed.proj"),
        ("attention.out_proj", "attn.proj"),
        ("upscale_block.block", "upscale"),
        ("layernorm2d", "norm"),
        ("layernorm", "vit.norm"),
        ("layers.", "vit.blocks."),
        ("class_predictor", "class_head"),
        ("mask_head.fc1", "mask_head.0"),
        ("mask_head.fc2", "mask_head.2"),
        ("mask_head.fc3", "mask_head.4"),
    ]
    for name, value in state.items():
        for old, new in replacements:
            name = name.replace(old, new)
        made[name] = value
    return made


def images() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def labels() -> Tensor:
    """Label maps (2, SIDE, SIDE) with three and four classes, and pixels that are ignored."""
    label = torch.randint(0, 4, (2, 6, 6), generator=torch.Generator().manual_seed(2))
    label[0][label[0] == 2] = 255
    return label.repeat_interleave(8, 1).repeat_interleave(8, 2)


def theirs_targets(targets: list[Target]) -> dict[str, list[Tensor]]:
    return {
        "mask_labels": [target.mask_MHW for target in targets],
        "class_labels": [target.class_M for target in targets],
    }


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_logits_in_evaluation(theirs: EomtForUniversalSegmentation, ours: EoMTViT, share: float) -> None:
    theirs.attn_mask_probs.fill_(share)
    ours.load_state_dict(renamed(theirs.state_dict()))
    with torch.no_grad():
        expected, found = theirs.eval()(images()), ours.eval()(images())
    assert len(found) == (1 if share == 0 else BLOCKS + 1)
    torch.testing.assert_close(found[-1].class_BQC, expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(found[-1].mask_BQhw, expected.masks_queries_logits, **CLOSE)
    assert found[-1].class_BQC.dtype == torch.float64 and found[-1].mask_BQhw.shape == (2, QUERIES, 12, 12)


def test_masks_matter(ours: EoMTViT) -> None:
    """Else the comparison with masked attention would say nothing."""
    with torch.no_grad():
        predictions = ours.eval()(images())
        masked = predictions[-1].class_BQC
        ours.anneal(1.0)
        free = ours(images())[-1].class_BQC
    assert (masked - free).abs().max() > 0.1
    for prediction in predictions:
        inside = torch.nn.functional.interpolate(prediction.mask_BQhw, size=(3, 3), mode="bilinear") > 0
        part = inside.flatten(2).float().mean(dim=2)
        assert ((part > 0) & (part < 1)).float().mean() > 0.5


def test_losses_and_gradients(theirs: EomtForUniversalSegmentation, ours: EoMTViT, head: EoMTHead) -> None:
    """In training, amid the annealing: the same queries are left free, points and assignments are the same."""
    theirs.attn_mask_probs.copy_(torch.tensor([0.2, 0.5, 0.9]))
    ours.load_state_dict(renamed(theirs.state_dict()))
    targets = targets_of(labels(), 255, dtype=torch.float64)
    torch.manual_seed(3)
    expected = theirs.train()(images(), **theirs_targets(targets)).loss
    torch.manual_seed(3)
    losses = head.losses(ours.train()(images()), targets)
    assert list(losses) == [
        f"{before}loss_{kind}" for before in ("d0.", "d1.", "d2.", "") for kind in ("cls", "mask", "dice")
    ]
    total = sum(losses.values())
    torch.testing.assert_close(total, expected, **CLOSE)
    expected.backward()
    total.backward()
    gradients = renamed({name: p.grad for name, p in theirs.named_parameters()} | {"attn_mask_probs": torch.ones(())})
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert gradients.keys() - found.keys() == {"masked"} and found.keys() <= gradients.keys()
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    for name, gradient in found.items():
        if name == "vit.pos_embed":  # theirs has no row for the class token
            gradient, gradients[name] = gradient[:, 1:], gradients[name][:, 1:]
        torch.testing.assert_close(gradient, gradients[name], **CLOSE, msg=name)


def test_each_loss(theirs: EomtForUniversalSegmentation, ours: EoMTViT, head: EoMTHead) -> None:
    targets = targets_of(labels(), 255, dtype=torch.float64)
    with torch.no_grad():
        prediction = ours.eval()(images())[-1]
        torch.manual_seed(4)
        expected = theirs.get_loss_dict(
            prediction.mask_BQhw, prediction.class_BQC, **theirs_targets(targets), auxiliary_predictions=None
        )
        torch.manual_seed(4)
        found = head.losses([prediction], targets)
    names = {"loss_cls": "loss_cross_entropy", "loss_mask": "loss_mask", "loss_dice": "loss_dice"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[names[name]], **CLOSE, msg=name)


def test_classes_of_pixels(theirs: EomtForUniversalSegmentation, ours: EoMTViT, head: EoMTHead) -> None:
    """One window of the model's size over an image of it: what transformers' processor makes of the logits."""
    with torch.no_grad():
        expected, (*_, found) = theirs.eval()(images()), ours.eval()(images())
        torch.manual_seed(5)
        # queries of many classes and of masks that cover a part each
        expected.class_queries_logits = 3 * torch.randn(2, QUERIES, CLASSES + 1)
        expected.masks_queries_logits = 3 * torch.randn(2, QUERIES, 12, 12)
        scores_BCHW = head([Prediction(expected.class_queries_logits, expected.masks_queries_logits, found.size)])
    expected.patch_offsets = [(0, 0, SIDE), (1, 0, SIDE)]
    processor = EomtImageProcessor(size={"shortest_edge": SIDE, "longest_edge": None}, do_split_image=True)
    maps = processor.post_process_semantic_segmentation(expected, target_sizes=[(SIDE, SIDE)] * 2)
    assert scores_BCHW.shape == (2, CLASSES, SIDE, SIDE)
    for scores_CHW, classes_HW in zip(scores_BCHW, maps, strict=True):
        assert torch.equal(scores_CHW.argmax(dim=0), classes_HW)
        assert len(classes_HW.unique()) > 2
