"""Reading weight files: every format to equal tensors, every damaged or hostile one to a message, no code run."""

import argparse
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import backbones.weights.reader
from backbones.weights.reader import read_weight_file


@pytest.fixture
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "patch_embed.proj.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "blocks.0.norm1.bias": torch.randn(4, generator=generator),
        "blocks.0.attn.relative_position_index": torch.arange(4),
    }


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.target,)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def write_zip(path: Path, held: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in held.items():
            archive.writestr(name, data)


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


# --- formats


@pytest.mark.parametrize("new_format", [True, False])
def test_pytorch_files_of_both_formats(tmp_path: Path, state: dict[str, Tensor], new_format: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": state, "epoch": 3}, path, _use_new_zipfile_serialization=new_format)
    file = read_weight_file(path)
    assert (file.kind, file.entry, file.others, file.metadata) == ("pytorch", "model", ("epoch",), {})
    assert_same(file.tensors, state)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_with_its_header_under_a_wrong_suffix(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pth"
    save_file(state, path, metadata={"format": "pt"})
    file = read_weight_file(path)
    assert (file.kind, file.entry, file.others, file.metadata) == ("safetensors", "", (), {"format": "pt"})
    assert_same(file.tensors, state)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_big_endian_arrays(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, **{"head/kernel": np.array([[1, 2], [3, 4]], ">f4"), "norm/scale": np.float32(5)})
    file = read_weight_file(path)
    assert file.kind == "numpy"
    assert_same(file.tensors, {"head/kernel": torch.tensor([[1.0, 2], [3, 4]]), "norm/scale": torch.tensor(5.0)})


def test_pickle_only_when_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": np.ones(3, np.float32)}, "__author__": "me"}, protocol=2))
    with pytest.raises(ValueError, match=r"model_final\.pkl: is a pickle.*--trust-pickle only for"):
        read_weight_file(path)
    file = read_weight_file(path, trust_pickle=True)
    assert (file.kind, file.entry, file.others) == ("pickle", "model", ("__author__",))
    assert_same(file.tensors, {"w": torch.ones(3)})


def test_pickle_of_python_2_with_latin1_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    # {'author': '\xe9', 'model': 'w'} as Python 2 wrote it
    path.write_bytes(b"\x80\x02}q\x00(U\x06authorU\x01\xe9U\x05modelU\x01wu.")
    with pytest.raises(ValueError, match=r"holds no tensors where weights lie. It holds author \(str\), model \(str\)"):
        read_weight_file(path, trust_pickle=True)


@pytest.mark.parametrize("new_format", [True, False])
def test_training_checkpoints_with_arguments_and_numpy_numbers(
    tmp_path: Path, state: dict[str, Tensor], new_format: bool
) -> None:
    """As MAE, DeiT and BEiT save them: a Namespace, a path from submitit, NumPy numbers, an optimizer."""
    arguments = argparse.Namespace(lr=np.float64(1.5e-4), job_dir=tmp_path, norm_pix_loss=True)
    training = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 799,
        "args": arguments,
        "best": np.float32(3),
        "history": np.arange(3),
    }
    torch.save(training, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    file = read_weight_file(tmp_path / "a.pth")
    assert file.others == ("optimizer", "epoch", "args", "best", "history")
    assert_same(file.tensors, state)


def test_mmengine_checkpoints_with_their_log(tmp_path: Path, state: dict[str, Tensor]) -> None:
    history_buffer = pytest.importorskip("mmengine.logging.history_buffer")
    log = history_buffer.HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({"state_dict": state, "message_hub": {"log_scalars": {"loss": log}}}, tmp_path / "iter_1.pth")
    assert_same(read_weight_file(tmp_path / "iter_1.pth").tensors, state)


def test_parameters_and_compressed_records(tmp_path: Path, state: dict[str, Tensor]) -> None:
    weights = {"w": torch.nn.Parameter(state["patch_embed.proj.weight"])}
    torch.save(weights, tmp_path / "a.pth")
    write_zip(tmp_path / "b.pth", records(tmp_path / "a.pth"), zipfile.ZIP_DEFLATED)
    for name in ("a.pth", "b.pth"):
        found = read_weight_file(tmp_path / name).tensors["w"]
        assert not found.requires_grad and torch.equal(found, weights["w"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_widths_are_kept_and_the_largest_numbers_are_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    wanted = {"w": torch.full((5,), torch.finfo(dtype).max, dtype=dtype), "empty": torch.zeros(0, dtype=dtype)}
    torch.save(wanted, tmp_path / "a.pth")
    assert_same(read_weight_file(tmp_path / "a.pth").tensors, wanted)


# --- entries


def test_entries_are_taken_in_order_and_the_top_level_last(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": "vit_base", "state_dict": state, "module": {"x": torch.zeros(1)}}, path)
    assert read_weight_file(path).entry == "state_dict"
    assert read_weight_file(path, entries=("module", "state_dict")).entry == "module"
    torch.save({**state, "epoch": 3}, path)
    file = read_weight_file(path)
    assert (file.entry, file.others) == ("", ("epoch",))
    assert_same(file.tensors, state)


def test_missing_entry_names_what_could_be_meant(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "dino.pth"
    torch.save({"student": state, "teacher": state, "epoch": 3}, path)
    with pytest.raises(
        ValueError, match=r"dino\.pth: none of model, state_dict.*student \(3 tensors\).*student or teacher"
    ):
        read_weight_file(path)
    assert read_weight_file(path, entries=("teacher",)).others == ("student", "epoch")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list, and a dict of tensors is needed"),
        ({"epoch": 3}, r"holds no tensors where weights lie. It holds epoch \(int\)"),
        ({}, "It holds nothing"),
        ({"model": {"encoder": {"w": torch.zeros(1)}}}, r"holds no tensors where weights lie. It holds model \(dict\)"),
        ({"model": {"w": torch.zeros(1), "n": {"x": torch.zeros(1)}}}, "model holds 1 values that are no tensors: n"),
        ({"model": {1: torch.zeros(1)}}, "names of tensors must be strings, and 1 are not"),
    ],
)
def test_contents_that_are_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_weight_file(tmp_path / "a.pth")


# --- values


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([1.0, float("nan"), 2.0]), "1 with NaN or infinite values: a.weight"),
        (torch.tensor([float("inf"), float("-inf")]), "1 with NaN or infinite values: a.weight"),
        (torch.tensor([float("nan"), 1.0], dtype=torch.float16), "1 with NaN or infinite values: a.weight"),
        (torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16), "1 with NaN or infinite values: a.weight"),
        (torch.zeros(2, dtype=torch.complex64), r"of torch.complex64 \(limit: float16, bfloat16, float32, float64\)"),
        (torch.zeros(2, dtype=torch.int8), r"quantised \(torch.int8\): a.weight"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "of torch.float8_e4m3fn"),
        (torch.zeros(1).expand(1 << 20, 1 << 20), "of a shape larger than the data stored for them: a.weight"),
        (torch.eye(3).to_sparse(), "quantised, sparse or without data: a.weight"),
        (torch.empty(3, device="meta"), "quantised, sparse or without data: a.weight"),
    ],
)
def test_values_that_no_weights_have(tmp_path: Path, tensor: Tensor, message: str) -> None:
    torch.save({"a.weight": tensor, "b.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_weight_file(tmp_path / "a.pth")


# --- hostile files


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pytorch_file_is_refused_by_name_and_not_run(
    tmp_path: Path, state: dict[str, Tensor], new_format: bool
) -> None:
    made = tmp_path / "made"
    torch.save({"model": state, "x": Malicious(made)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(
        ValueError, match=r"a\.pth: holds more than tensors.*--trust-pickle is only for files you trust"
    ):
        read_weight_file(tmp_path / "a.pth")
    assert not made.exists()
    # the same file does run its code where it is trusted: the test above would see it
    read_weight_file(tmp_path / "a.pth", trust_pickle=True)
    assert made.exists()


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Malicious(made)))
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(made)))
    for name in ("a.pkl", "a.pth"):
        with pytest.raises(ValueError, match="unpickling can run any code"):
            read_weight_file(tmp_path / name)
    np.savez(tmp_path / "a.npz", w=np.array([Malicious(made)], dtype=object))
    with pytest.raises(ValueError, match="holds pickled objects, which can run code"):
        read_weight_file(tmp_path / "a.npz")
    assert not made.exists()


def test_a_whole_model_names_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"it needs torch\.nn\.modules\.linear\.Linear"):
        read_weight_file(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds a Linear, and a dict of tensors is needed"):
        read_weight_file(tmp_path / "a.pth", trust_pickle=True)


def test_pickle_of_classes_that_are_not_here(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cno_such_module\nThing\n.")
    with pytest.raises(ValueError, match=r"needs code that is not here .*no_such_module"):
        read_weight_file(tmp_path / "a.pkl", trust_pickle=True)


def test_zip_bombs_are_refused_unread(tmp_path: Path) -> None:
    zeros = np.zeros(17 << 20, np.float32)  # 68 MiB, over the floor of 64, in some 70 KB
    np.savez_compressed(tmp_path / "a.npz", w=zeros)
    held = {"a/data.pkl": b"", "a/data/0": zeros.tobytes()}
    write_zip(tmp_path / "a.pth", held, zipfile.ZIP_DEFLATED)
    for name in ("a.npz", "a.pth"):
        with pytest.raises(ValueError, match=r"would unpack to 713\d+; the limit is 67108864 .*zip bomb"):
            read_weight_file(tmp_path / name)


def test_records_shorter_than_their_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100), "b": torch.ones(3)}, tmp_path / "a.pth")
    held = {name: data[:40] if len(data) == 400 else data for name, data in records(tmp_path / "a.pth").items()}
    write_zip(tmp_path / "b.pth", held)
    with pytest.raises(ValueError, match="1 whose data are cut short: w"):
        read_weight_file(tmp_path / "b.pth")


def test_headers_that_claim_absurd_shapes(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    (tmp_path / "b.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + header + bytes(16))
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
    write_zip(tmp_path / "a.npz", {"w.npy": array.getvalue() + bytes(16)})
    for name in ("a.safetensors", "b.safetensors", "a.npz"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read to its end .*truncated or damaged"):
            read_weight_file(tmp_path / name)


# --- damaged files, and what is no weight file


def test_every_format_cut_anywhere(tmp_path: Path) -> None:
    weights = {"w": torch.ones(64, 8)}
    torch.save(weights, tmp_path / "zip.pth")
    torch.save(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", w=weights["w"].numpy())
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": weights["w"].numpy()}))
    for whole in sorted(tmp_path.iterdir()):
        data = whole.read_bytes()
        read_weight_file(whole, trust_pickle=True)
        for share in (0.03, 0.1, 0.3, 0.6, 0.9, 0.999):
            cut = tmp_path / f"cut_{whole.name}"
            cut.write_bytes(data[: int(share * len(data))])
            with pytest.raises(ValueError, match=rf"cut_{whole.name}: "):
                read_weight_file(cut, trust_pickle=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty \(0 bytes\).*Fetch it again"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "holds a web page.*Fetch it again from the direct link"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "holds a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(30), "is an archive. Unpack it"),
        (b"\x93NUMPY" + bytes(30), "one NumPy array.*numpy.savez"),
        (b"not a weight file", "it begins with b'not a we', which is none of safetensors, PyTorch"),
    ],
)
def test_other_files_are_said_to_be_what_they_are(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.pth: (?s:.)*{message}"):
        read_weight_file(tmp_path / "a.pth")


def test_zip_archives_of_others(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.pth", {"weights.pth": b"x"})
    with pytest.raises(ValueError, match=r"neither PyTorch nor NumPy wrote; it holds weights\.pth. Unpack"):
        read_weight_file(tmp_path / "a.pth")
    write_zip(tmp_path / "a.pth", {"a/data.pkl": b"", "a/constants.pkl": b""})
    with pytest.raises(ValueError, match="TorchScript program"):
        read_weight_file(tmp_path / "a.pth")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nope\.pth: no such file"):
        read_weight_file(tmp_path / "nope.pth")
    with pytest.raises(ValueError, match=r"is a folder.*No file in it ends with \.safetensors"):
        read_weight_file(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"is a folder.*Weight files in it: pytorch_model\.bin"):
        read_weight_file(tmp_path)


def test_digest_follows_a_file_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    digests = []
    for value in (1.0, 2.0):
        torch.save({"w": torch.full((3,), value)}, tmp_path / "new")
        (tmp_path / "new").rename(path)
        digests.append(read_weight_file(path).sha256)
        assert digests[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert digests[0] != digests[1]


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.pkl", "a"])
def test_a_pytorch_file_under_any_name(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as opened:
        torch.save({"a": torch.arange(3.0)}, opened)
    file = read_weight_file(tmp_path / name)
    assert file.kind == "pytorch" and torch.equal(file.tensors["a"], torch.arange(3.0))


def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3))
    original = backbones.weights.reader._read_npz

    def replaced(which: Path) -> object:
        found = original(which)
        np.savez(tmp_path / "other.npz", a=np.ones(3))
        (tmp_path / "other.npz").replace(path)
        return found

    monkeypatch.setattr(backbones.weights.reader, "_read_npz", replaced)
    with pytest.raises(ValueError, match="was replaced or changed while it was read"):
        read_weight_file(path)


def test_the_digest_is_of_the_content_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(100_000))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    file = read_weight_file(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    (tmp_path / "other.npz").replace(path)
    assert file.sha256 == expected
