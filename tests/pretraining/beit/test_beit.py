"""BEiT's model and task: loss by hand, who gets a gradient, one crop at two sizes, metrics, and what is refused."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import classification.task
from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import with_architecture
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from classification.config import ClassificationConfig
from engine.config import as_json
from engine.images.reading import open_images
from engine.records.results_file import ImageResult
from engine.training.data import Loading, eval_batches
from engine.training.loop import fit
from files.typed import from_json
from pretraining.beit.config import BEiTConfig
from pretraining.beit.data import CentreCrop, Images, MaskedViews, RandomCrop
from pretraining.beit.model import STD, MaskedImageModel, TokenPrediction, initialise_encoder
from pretraining.beit.pictures import draw_tokens, drawn_tokens
from pretraining.beit.recipes import BEIT_RECIPES
from pretraining.beit.task import BEiTTask, build_task
from pretraining.mae.config import MAEConfig
from pretraining.tokenizer.config import DVAEConfig
from pretraining.tokenizer.file import OwnTokenizer, TokenizerHeader, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE

TINY = ViTConfig(
    embed_dim=16,
    depth=2,
    num_heads=2,
    patch_size=8,
    image_size=(32, 32),
    position="none",
    qkv_bias="qv",
    layer_scale=0.1,
    relative_position="shared_table",
)
HEADER = TokenizerHeader(vocabulary=12, downsampling=4, code_dim=5, width=6, image_size=(16, 16))


def dvae(seed: int = 0, vocabulary: int = 12) -> DiscreteVAE:
    torch.manual_seed(seed)
    return DiscreteVAE(vocabulary=vocabulary, downsampling=4, code_dim=5, width=6).eval()


def model(architecture: ViTConfig = TINY) -> MaskedImageModel:
    return MaskedImageModel(ViT(architecture), OwnTokenizer(dvae(), HEADER, sha256={}))


def a_batch(count: int = 2) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    mask_BN = torch.zeros(count, 16, dtype=torch.bool)
    for row in range(count):
        mask_BN[row, torch.randperm(16)[:6]] = True
    return torch.randn(count, 3, 32, 32), torch.rand(count, 3, 16, 16), mask_BN, [str(i) for i in range(count)]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, dvae(), HEADER)
    return path


@pytest.fixture
def config(mae_config: MAEConfig, tokenizer_file: Path) -> BEiTConfig:
    """Sixteen patches of which six are masked."""
    return BEiTConfig(
        backbone=TINY,
        run=mae_config.run,
        tokenizer=str(tokenizer_file),
        token_size=(16, 16),
        masked_patches=6,
        min_block=2,
    )


def test_loss_and_accuracy_by_hand() -> None:
    # one image, two masked patches: sure of the right token; torn between two tokens, the first of which is not it
    logits = torch.tensor([[[0.0, 50.0, 0.0], [0.0, 0.0, -50.0]]])
    made = TokenPrediction(logits, torch.tensor([[1, 1]]))
    assert made.loss_BM.tolist()[0] == pytest.approx([0.0, math.log(2)])
    assert made.hit_BM.tolist() == [[True, False]]


def test_untrained_model_knows_nothing() -> None:
    one = model()
    nn.init.zeros_(one.lm_head.weight)
    assert float(one(a_batch())["cross_entropy"].detach()) == pytest.approx(math.log(12), rel=1e-6)


def test_loss_is_that_of_the_masked_patches() -> None:
    one = model().eval()
    image_BCHW, pixel_BCHW, mask_BN, _ = batch = a_batch(3)
    token_BN = one.tokenizer.tokens(pixel_BCHW).flatten(1)
    logits = one.lm_head(one.encode(image_BCHW, mask_BN))
    by_hand = [-logits[b, n].log_softmax(dim=0)[token_BN[b, n]] for b, n in mask_BN.nonzero().tolist()]
    assert len(by_hand) == 18
    torch.testing.assert_close(one(batch)["cross_entropy"], torch.stack(by_hand).mean())  # float32, order of summing


def test_prediction_never_sees_masked_pixels() -> None:
    one = model().eval()
    image_BCHW, pixel_BCHW, mask_BN, _ = a_batch()
    masked = mask_BN.view(2, 1, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    other = torch.where(masked, torch.randn_like(image_BCHW), image_BCHW)
    made, again = (one.predict(image, pixel_BCHW, mask_BN).logit_BMV for image in (image_BCHW, other))
    assert torch.equal(made, again)
    visible_BCHW = torch.where(masked, image_BCHW, other + 1)
    assert not torch.equal(made, one.predict(visible_BCHW, pixel_BCHW, mask_BN).logit_BMV)


def test_who_learns() -> None:
    one = model()
    nn.init.normal_(one.encoder.rel_pos_bias.relative_position_bias_table)  # type: ignore[union-attr,arg-type]
    one(a_batch())["cross_entropy"].backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    # the tokenizer is no part of the model: it is neither trained nor saved nor counted
    assert not [name for name in one.state_dict() if not name.startswith(("encoder.", "mask_token", "lm_head."))]
    assert not any(p.requires_grad for p in one.tokenizer.model.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_positions_are_added_to_the_mask_token_too(position: str) -> None:
    flat = replace(TINY, position=position, relative_position="none")  # type: ignore[arg-type]
    one = model(flat).eval()
    tokens = one.encode(torch.randn(1, 3, 32, 32), torch.ones(1, 16, dtype=torch.bool))
    assert len(tokens[0].round(decimals=4).unique(dim=0)) == 16  # without positions all would be alike


def test_bfloat16_autocast() -> None:
    one, batch = model().eval(), a_batch()
    exact = one(batch)["cross_entropy"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = one(batch)["cross_entropy"]
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, exact, rtol=1e-2, atol=0)  # bfloat16 keeps 8 bits


def test_initial_weights_are_beits() -> None:
    encoder = ViT(replace(TINY, embed_dim=64, depth=3))
    initialise_encoder(encoder)
    # a normal cut off at one std has 0.54 of it
    for number in range(3):
        block = encoder.blocks[number]
        for weight, scale in (
            (block.attn.qkv.weight, 1.0),
            (block.mlp.fc1.weight, 1.0),
            (block.attn.proj.weight, (2 * (number + 1)) ** -0.5),
            (block.mlp.fc2.weight, (2 * (number + 1)) ** -0.5),
        ):
            assert weight.abs().max() <= STD * scale
            assert float(weight.std().detach()) == pytest.approx(0.54 * STD * scale, rel=0.05)
        assert block.gamma_1.unique().tolist() == pytest.approx([0.1])
    assert encoder.rel_pos_bias is not None and not encoder.rel_pos_bias.relative_position_bias_table.any()
    assert encoder.cls_token is not None and 0 < encoder.cls_token.abs().max() <= STD


def gradient_image(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, both smoothly."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x + 99], axis=2).astype(np.uint8))


def views(crop: object, **changes: object) -> MaskedViews:
    options = {
        "image_size": (32, 48),
        "token_size": (16, 24),
        "mask": lambda generator: torch.full((2, 3), generator.random() < 2),
    }
    return MaskedViews(crop, **{**options, **changes})  # type: ignore[arg-type]


def test_both_sizes_show_the_same_crop() -> None:
    make = views(RandomCrop(scale=(0.2, 0.6), flip=True, jitter=0.0))
    for seed in range(10):
        torch.manual_seed(seed)
        image_CHW, pixel_CHW, mask_N = make(gradient_image(90, 70))
        assert image_CHW.shape == (3, 32, 48) and pixel_CHW.shape == (3, 16, 24) and mask_N.tolist() == [True] * 6
        assert image_CHW.dtype == pixel_CHW.dtype == torch.uint8
        halved = nn.functional.avg_pool2d(image_CHW.float(), 2)
        # a smooth image: two kernels differ by a level or two, and more at the edges alone
        assert (halved - pixel_CHW)[:, 2:-2, 2:-2].abs().max() < 4


def test_jitter_changes_both_sizes_alike() -> None:
    image, jitter = gradient_image(64, 64), RandomCrop(scale=(1.0, 1.0), flip=False, jitter=0.4)
    torch.manual_seed(1)
    image_CHW, pixel_CHW, _ = views(jitter, image_size=(32, 32), token_size=(16, 16))(image)
    plain = views(RandomCrop(scale=(1.0, 1.0), flip=False, jitter=0.0), image_size=(32, 32), token_size=(16, 16))
    torch.manual_seed(1)
    _, unchanged, _ = plain(image)
    assert (pixel_CHW.float() - unchanged).abs().mean() > 5
    # clipping at black and white bends the ramps, and there the two kernels differ more
    assert (nn.functional.avg_pool2d(image_CHW.float(), 2) - pixel_CHW).abs().mean() < 2


def test_centre_crop_by_hand() -> None:
    # 100 x 60 for a square: 60 * 0.875 = 52.5 -> 52 pixels, from (100 - 52) / 2 and (60 - 52) / 2
    crop = CentreCrop((32, 32))(gradient_image(100, 60))
    assert crop.size == (52, 52)
    expected = gradient_image(100, 60).crop((24, 4, 76, 56))
    assert np.array_equal(np.asarray(crop), np.asarray(expected))
    assert CentreCrop((32, 64))(gradient_image(100, 60)).size == (88, 44)  # wide: 100 * 0.875 = 87.5 -> 88


def test_masks_follow_the_seed_of_the_sample(config: BEiTConfig, data: Path) -> None:
    task = build_task(config, data=data, init=None)
    masks = []
    for seed in (5, 5, 6):
        random.seed(seed)
        torch.manual_seed(0)
        (_, _, mask_N), _ = task.train_data[0]
        masks.append(mask_N)
        assert mask_N.sum() == 6
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def predicted(task: BEiTTask) -> list[ImageResult]:
    task.model.eval()
    (batch,) = eval_batches(task.val_data, task.collate, batch_size=8, loading=Loading())
    with torch.no_grad():
        return task.predict(batch.data)


def test_task(config: BEiTConfig, data: Path, tmp_path: Path, tokenizer_file: Path) -> None:
    task = build_task(config, data=data, init=None)
    assert (task.facts.train_images, task.facts.val_images, task.facts.weights.source) == (6, 4, "random")
    assert task.facts.flops_per_image
    said = task.facts.extra["tokenizer"]
    assert (said["kind"], said["vocabulary"], said["downsampling"]) == ("own", 12, 4)
    assert len(said["sha256"]["tokenizer.safetensors"]) == 64
    results = predicted(task)
    assert [r.image_id for r in results] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert [r.values for r in predicted(task)] == [r.values for r in results]  # the same masks every time
    metrics = task.score(results)
    assert metrics["val_loss"] == pytest.approx(math.log(12), rel=0.1)
    assert 0 <= metrics["token_accuracy"] <= 100
    paths = [*task.draw(results, tmp_path), *task.finish(tmp_path)]
    assert [p.name for p in paths] == ["tokens.png", "backbone.safetensors"]
    checkpoint = read_checkpoint(InitialWeights(path=paths[1]))
    assert (checkpoint.source, checkpoint.architecture, checkpoint.normalisation) == ("beit", TINY, IMAGENET)
    assert checkpoint.state.keys() == dict(task.model.encoder.named_parameters()).keys()


def test_score_by_hand(config: BEiTConfig, data: Path) -> None:
    task = build_task(config, data=data, init=None)
    results = [
        ImageResult("a", {"loss": 1.0, "right": 0.5, "tokens": [3, 7]}),
        ImageResult("b", {"loss": 2.0, "right": 0.0, "tokens": [7, 7]}),
    ]
    assert task.score(results) == {"val_loss": 1.5, "token_accuracy": 25.0, "constant_accuracy": 75.0}
    with pytest.raises(ValueError, match="no image of split val could be evaluated"):
        task.score([])


def test_weight_decay_is_beits(config: BEiTConfig, data: Path) -> None:
    task = build_task(config, data=data, init=None)
    decay = {name: g.weight_decay for g in task.param_groups(config.run.optim) for name in g.names}
    assert decay.keys() == dict(task.model.named_parameters()).keys()
    free = {name for name, value in decay.items() if value == 0}
    assert {"encoder.cls_token", "encoder.norm.weight", "encoder.blocks.0.gamma_1", "lm_head.bias"} <= free
    assert decay["mask_token"] == decay["lm_head.weight"] == 0.05
    assert decay["encoder.rel_pos_bias.relative_position_bias_table"] == 0.05


def test_predicted_tokens_are_pasted() -> None:
    one = model().eval()
    image_BCHW, pixel_BCHW, mask_BN, _ = a_batch()
    picture, true, made = drawn_tokens(one, image_BCHW, pixel_BCHW, mask_BN)
    masked = mask_BN.view(2, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand(-1, 3, -1, -1)
    assert (picture[masked] == 0.5).all() and torch.equal(picture[~masked], pixel_BCHW[~masked])
    token_Bhw = one.tokenizer.tokens(pixel_BCHW)
    assert torch.equal(true, one.tokenizer.decode(token_Bhw))
    nn.init.zeros_(one.lm_head.weight)
    one.lm_head.bias.data[7] = 1.0  # it always says 7
    _, _, made = drawn_tokens(one, image_BCHW, pixel_BCHW, mask_BN)
    sevens = torch.where(mask_BN.view(2, 4, 4), 7, token_Bhw)
    assert torch.equal(made, one.tokenizer.decode(sevens))


def test_the_picture_says_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = model().eval()
    image_BCHW, pixel_BCHW, mask_BN, _ = a_batch()
    titles: list[str] = []
    save = Figure.savefig

    def watched(self: Figure, *arguments: Any, **options: Any) -> None:
        titles.extend(axes.get_title() for axes in self.axes[:5])
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    draw_tokens(tmp_path / "tokens.png", one, image_BCHW, pixel_BCHW, mask_BN)
    assert titles[2:] == ["its tokens", "predicted tokens", "difference of the two"]


def test_classification_takes_it(
    config: BEiTConfig, class_config: ClassificationConfig, data: Path, tmp_path: Path
) -> None:
    task = build_task(config, data=data, init=None)
    init = InitialWeights(path=task.finish(tmp_path)[0], architecture="file")
    adopted = with_architecture(class_config, init)
    assert adopted.backbone == TINY
    again = classification.task.build_task(adopted, data=data, init=init)
    assert (again.facts.weights.source, again.facts.weights.path) == ("beit", str(init.path))
    loaded = dict(again.model.backbone.named_parameters())
    for name, parameter in task.model.encoder.named_parameters():
        if not name.startswith("norm."):
            assert torch.equal(loaded[name], parameter), name
    # and BEiT can go on from it
    more = build_task(config, data=data, init=InitialWeights(path=init.path))
    assert torch.equal(more.model.encoder.get_parameter("cls_token"), task.model.encoder.get_parameter("cls_token"))


def test_weights_do_not_depend_on_the_tokenizer(config: BEiTConfig, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    write_tokenizer(other, dvae(1), HEADER)
    encoders = []
    for file in (config.tokenizer, str(other)):
        torch.manual_seed(0)
        encoders.append(build_task(replace(config, tokenizer=file), data=data, init=None).model.encoder)
    for name, parameter in encoders[0].named_parameters():
        assert torch.equal(parameter, encoders[1].get_parameter(name)), name


def test_refused(config: BEiTConfig, data: Path) -> None:
    for changes, message in (
        ({"tokenizer": None}, "none was named: give --tokenizer FILE"),
        ({"tokenizer": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
        ({"token_size": (32, 32)}, "the tokenizer makes 8 x 8 tokens of images of 32 x 32 pixels (4 pixels a token), "
         "and the ViT has 4 x 4 patches; token_size (16, 16) gives one token per patch"),
        ({"token_size": (16, 18)}, "token_size (16, 18) is no multiple of the 4 pixels"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
            build_task(replace(config, **changes), data=data, init=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="masked_patches is 16 and the ViT has 4 x 4 = 16 patches"):
        replace(config, masked_patches=16)
    with pytest.raises(ValueError, match="whole image; set window_size to 0"):
        replace(config, backbone=replace(TINY, window_size=2, relative_position="none"))
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        Images(open_images(data / "absent"), views(CentreCrop((32, 32))))


def test_resume_with_another_tokenizer_is_refused(
    config: BEiTConfig, data: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    out = tmp_path / "run"
    record = fit(build_task(config, data=data, init=None), config, recipe="tiny", out=out)
    assert record.extra["tokenizer"]["vocabulary"] == 12
    write_tokenizer(tokenizer_file, dvae(0, 20), replace(HEADER, vocabulary=20))
    with pytest.raises(ValueError, match=r"cannot be resumed with this one: .*tokenizer\.vocabulary: 12 -> 20"):
        fit(build_task(config, data=data, init=None), config, recipe="tiny", out=out, resume=True)
    write_tokenizer(tokenizer_file, dvae(1), HEADER)
    with pytest.raises(ValueError, match=r"data\.tokenizer\.sha256\.tokenizer\.safetensors: \w{64} -> \w{64}"):
        fit(build_task(config, data=data, init=None), config, recipe="tiny", out=out, resume=True)


@pytest.mark.parametrize("name", BEIT_RECIPES)
def test_recipes(name: str) -> None:
    recipe = BEIT_RECIPES[name]()
    again = from_json(type(recipe), as_json(recipe))
    assert again == recipe
    if isinstance(recipe, DVAEConfig):
        beit = BEIT_RECIPES[name.replace("dvae", "beit")]()
        assert isinstance(beit, BEiTConfig)
        assert beit.token_size == tuple(side * recipe.downsampling for side in beit.backbone.grid)
    else:
        assert (recipe.backbone.position, recipe.backbone.relative_position) == ("none", "shared_table")


def test_the_published_recipe() -> None:
    recipe = BEIT_RECIPES["beit_base"]()
    assert isinstance(recipe, BEiTConfig)
    assert (recipe.masked_patches, recipe.min_block, recipe.backbone.grid) == (75, 16, (14, 14))
    assert recipe.run.optim.lr(2048) == 1.5e-3
    assert recipe.run.schedule.final * 1.5e-3 == pytest.approx(1e-5)
