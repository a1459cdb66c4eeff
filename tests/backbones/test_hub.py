"""Weights by name, against a hub on loopback: found, pinned, cached, and refused with the way out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from backbones.weights import address as weights_address
from backbones.weights import hub
from backbones.weights.address import kept_at
from backbones.weights.hub import Remote, find, is_remote, name_of, parse
from backbones.weights.reader import read_weight_file
from tests.hub_server import Hub, Repository, commit, serving

OLD, NEW = commit(1), commit(2)
WEIGHTS, LATER = b"first weights" * 20_000, b"later weights" * 20_000
CONFIG = b'{"architecture": "vit_base_patch16_224"}'


def repositories() -> dict[str, Repository]:
    first = {"model.safetensors": WEIGHTS, "config.json": CONFIG, "modeling.py": b"raise SystemExit"}
    return {
        "facebook/vit-mae-base": Repository({OLD: first, NEW: {**first, "model.safetensors": LATER}}, {"main": OLD}),
        "timm/vit_tiny.tag": Repository({OLD: {"model.safetensors": WEIGHTS}}, {"main": OLD, "v1": OLD}),
        "some/pickle": Repository({OLD: {"pytorch_model.bin": WEIGHTS}}, {"main": OLD}),
        "some/two": Repository({OLD: {"a.safetensors": WEIGHTS, "sub/b.pth": LATER}}, {"main": OLD}),
        "some/usual": Repository(
            {
                OLD: {
                    "finetuned.pth": LATER,
                    "pytorch_model.bin": LATER,
                    "model.safetensors": WEIGHTS,
                    "config.json": CONFIG,
                }
            },
            {"main": OLD},
        ),
        "some/none": Repository({OLD: {"README.md": b"words"}}, {"main": OLD}),
        "some/parts": Repository(
            {OLD: {"m-1-of-2.safetensors": b"", "m-2-of-2.safetensors": b"", "m.safetensors.index.json": b"{}"}},
            {"main": OLD},
        ),
        "some/gated": Repository({}, {}, status=403),
        "some/broken": Repository({}, {}, status=500),
    }


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(repositories(), {"/files/mae.pth": WEIGHTS}) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield made


@pytest.mark.parametrize(
    ("text", "repository", "revision", "file"),
    [
        ("hf:facebook/vit-mae-base", "facebook/vit-mae-base", None, None),
        (f"hf:facebook/vit-mae-base@{OLD}", "facebook/vit-mae-base", OLD, None),
        ("hf:some/two/sub/b.pth@v1", "some/two", "v1", "sub/b.pth"),
        ("timm:vit_base_patch16_224.mae", "timm/vit_base_patch16_224.mae", None, None),
        ("timm:vit_base_patch16_224.mae@v2", "timm/vit_base_patch16_224.mae", "v2", None),
        ("https://host/a/mae.pth", None, None, None),
    ],
)
def test_names(text: str, repository: str | None, revision: str | None, file: str | None) -> None:
    assert is_remote(text)
    assert parse(text) == Remote(text=text, repository=repository, revision=revision, file=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:vit-mae-base", r"hf:vit-mae-base: no name of a model; it should be hf:OWNER/MODEL\[@REVISION\]"),
        ("hf:a b/c", "no name of a model"),
        ("timm:", "no name of a model"),
        ("hf:owner/model@", "nothing follows the @; it is a revision"),
        ("hf:owner/model/../../x.pth", r"'\.\./\.\./x\.pth' is no file of a repository"),
        ("https://", "no address of a file"),
        ("https://host/folder/", "no address of a file"),
    ],
)
def test_what_is_no_name_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for name in (f"hf:{text}", f"timm:{text}", f"https://{text}"):
        try:
            made = parse(name)
        except ValueError as error:
            assert str(error).startswith(name)
        else:
            assert made.text == name


def test_a_file_here_is_no_name() -> None:
    assert not any(map(is_remote, ("weights.pth", "./hf/a.pth", "/data/timm:x", "C:weights.pth")))


def test_a_model_is_downloaded_once_and_stated_with_its_commit(server: Hub) -> None:
    found = find(parse("hf:facebook/vit-mae-base"))
    assert found.path.read_bytes() == WEIGHTS and found.path.with_name("config.json").read_bytes() == CONFIG
    assert found.name == f"hf:facebook/vit-mae-base@{OLD}"
    assert not found.path.with_name("modeling.py").exists()  # no code
    before = len(server.fetched())
    assert find(parse("hf:facebook/vit-mae-base")).path == found.path
    assert len(server.fetched()) == before  # the server was asked for the revision alone


def test_a_branch_that_moved_gives_the_new_commit_and_the_old_one_stays(server: Hub) -> None:
    first = find(parse("hf:facebook/vit-mae-base"))
    server.repositories["facebook/vit-mae-base"].branches["main"] = NEW
    second = find(parse("hf:facebook/vit-mae-base"))
    assert (second.name, second.path.read_bytes()) == (f"hf:facebook/vit-mae-base@{NEW}", LATER)
    again = find(parse(first.name))  # what a record states
    assert (again.name, again.path.read_bytes()) == (first.name, WEIGHTS)


def test_a_commit_in_the_cache_asks_nobody(server: Hub) -> None:
    name = find(parse("hf:facebook/vit-mae-base")).name
    server.asked.clear()
    assert find(parse(name)).path.read_bytes() == WEIGHTS and server.asked == []


def test_a_tag_a_pickle_and_a_file_of_several(server: Hub) -> None:
    assert find(parse("timm:vit_tiny.tag@v1")).name == f"hf:timm/vit_tiny.tag@{OLD}"
    assert find(parse("hf:some/pickle")).path.name == "pytorch_model.bin"
    found = find(parse("hf:some/two/sub/b.pth"))
    assert (found.name, found.path.read_bytes()) == (f"hf:some/two/sub/b.pth@{OLD}", LATER)
    assert find(parse(found.name)).path == found.path


@pytest.mark.parametrize("file", ["finetuned.pth", "pytorch_model.bin"])
def test_a_pinned_name_never_means_another_file_that_is_cached(
    file: str, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = find(parse(f"hf:some/usual/{file}@{OLD}"))
    assert (other.path.read_bytes(), name_of(other.path)) == (LATER, f"hf:some/usual/{file}@{OLD}")
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError, match=f"hf:some/usual@{OLD}: it is not in the cache, and the server is not"):
            find(parse(f"hf:some/usual@{OLD}"))
    found = find(parse(f"hf:some/usual@{OLD}"))
    assert (found.path.read_bytes(), name_of(found.path)) == (WEIGHTS, f"hf:some/usual@{OLD}")


def test_a_pinned_name_is_completed_where_its_config_is_not_in_the_cache(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(parse("hf:some/usual"))
    for name in (found.name, f"hf:some/usual/model.safetensors@{OLD}"):
        found.path.with_name("config.json").unlink()
        with monkeypatch.context() as offline:
            offline.setattr(constants, "HF_HUB_OFFLINE", True)
            message = f"{name}: the cache has model.safetensors without config.json, which say how it is read, and the"
            with pytest.raises(ValueError, match=message):
                find(parse(name))
        assert find(parse(name)).path.with_name("config.json").read_bytes() == CONFIG


def test_a_cache_whose_model_was_never_listed(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.hf_hub_download("some/usual", "finetuned.pth", endpoint=server.url)
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        for name in ("hf:some/usual", f"hf:some/usual@{OLD}"):
            message = (
                f"{name}: the cache has finetuned.pth of commit {OLD[:12]}, but not the list of the model's files.*"
                f"name the file that is meant: hf:some/usual/finetuned.pth@{OLD}"
            )
            with pytest.raises(ValueError, match=message):
                find(parse(name))
        assert find(parse(f"hf:some/usual/finetuned.pth@{OLD}")).path.read_bytes() == LATER
    assert find(parse(f"hf:some/usual@{OLD}")).path.read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:some/absent", "the hub has no such model, or a private one.*a token that may read it as HF_TOKEN"),
        ("hf:some/gated", "its publisher asks for consent. Accept the terms at .*some/gated.*as HF_TOKEN"),
        ("hf:some/two", r"several files may be its weights \(a.safetensors, sub/b.pth\); name one, as hf:OWNER/MODEL/"),
        ("hf:some/two/c.pth", "there is no such file in it; it has a.safetensors, sub/b.pth"),
        ("hf:some/none", r"it holds no file of weights \(README.md\)"),
        ("hf:some/parts", "its weights are in several parts"),
        ("hf:facebook/vit-mae-base@v9", "the model has no revision v9; see .*facebook/vit-mae-base"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(text: str, message: str, server: Hub) -> None:
    with pytest.raises(ValueError, match=f"{text}: {message}"):
        find(parse(text))


def test_a_busy_hub_is_asked_again(server: Hub) -> None:
    server.behaviour.busy = 2
    assert find(parse("hf:some/pickle")).path.read_bytes() == WEIGHTS
    server.behaviour.busy = 100
    with pytest.raises(ValueError, match="hf:some/pickle: the server answered 429"):
        find(parse("hf:some/pickle"))


def test_a_download_that_is_cut_off_goes_on_where_it_was(server: Hub) -> None:
    server.behaviour.cut_after = 100_000
    assert find(parse("hf:some/pickle")).path.read_bytes() == WEIGHTS


def test_a_download_of_a_killed_process_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    address = f"{server.url}/files/mae.pth"
    part = find(parse(address)).path
    part.rename(part.with_name("mae.pth.part"))
    with part.with_name("mae.pth.part").open("r+b") as file:
        file.truncate(100_000)
    assert find(parse(address)).path.read_bytes() == WEIGHTS
    assert server.ranges == ["bytes=100000-"] and not part.with_name("mae.pth.part").exists()


@pytest.mark.parametrize(("held", "asked"), [(WEIGHTS, 1), (WEIGHTS + b"of another file", 2)])
def test_a_part_that_nothing_follows(held: bytes, asked: int, server: Hub) -> None:
    address = f"{server.url}/files/mae.pth"
    part = kept_at(address).with_name("mae.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(held)
    assert find(parse(address)).path.read_bytes() == WEIGHTS
    assert len(server.asked) == asked and not part.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_of_several_at_once_one_downloads(locks: bool, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locks:  # each has a part of its own, as processes have
        monkeypatch.setattr(weights_address, "locked", lambda *_, **__: nullcontext("no locks"))
        numbers = iter((1, 2))
        monkeypatch.setattr(weights_address.os, "getpid", lambda: next(numbers))
    server.behaviour.delay = 0.05
    name = f"{server.url}/files/mae.pth"
    kept_at(name).parent.mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: find(parse(name)), range(2)))
    assert found[0] == found[1] and found[0].path.read_bytes() == WEIGHTS
    assert server.asked.count("GET /files/mae.pth") == (1 if locks else 2)
    assert not list(found[0].path.parent.glob("*.part"))


def test_a_damaged_file_of_an_address_says_what_to_remove(server: Hub, tmp_path: Path) -> None:
    address = f"{server.url}/files/mae.pth"
    path = find(parse(address)).path
    for content in (b"", b"<html>log in", b"\x80\x02}q\x00", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"It is kept from {address}: remove {path}, and the next run fetches it"):
            read_weight_file(path, trust_pickle=True)
        (tmp_path / "own.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"own\.pth: ((?!kept from).)*$"):
            read_weight_file(tmp_path / "own.pth", trust_pickle=True)


def test_a_slow_download_arrives(server: Hub) -> None:
    server.behaviour.delay = 0.05
    assert find(parse("hf:some/pickle")).path.read_bytes() == WEIGHTS


def test_what_is_not_what_was_published_is_removed(server: Hub) -> None:
    server.behaviour.wrong = True
    with pytest.raises(ValueError, match=r"hf:some/pickle: what arrived is not what was published .* it was removed"):
        find(parse("hf:some/pickle"))
    server.behaviour.wrong = False
    assert find(parse("hf:some/pickle")).path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_what_is_cached_works_and_the_rest_says_what_to_bring(
    offline: bool, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(parse("hf:facebook/vit-mae-base"))
    find(parse(f"{server.url}/files/mae.pth"))
    address = f"{server.url}/files/mae.pth"
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert find(parse("hf:facebook/vit-mae-base")).name == f"hf:facebook/vit-mae-base@{OLD}"
    assert find(parse(address)).path.read_bytes() == WEIGHTS
    message = (
        r"hf:some/pickle: it is not in the cache, and the server is not reached .* download the weights and what is "
        r"beside them from .*some/pickle; here give --init FILE and --init-source FAMILY"
    )
    with pytest.raises(ValueError, match=message):
        find(parse("hf:some/pickle"))


def test_a_file_at_an_address(server: Hub) -> None:
    server.behaviour.cut_after = 100_000
    found = find(parse(f"{server.url}/files/mae.pth"))
    assert (found.path.name, found.path.read_bytes()) == ("mae.pth", WEIGHTS)
    assert found.name == f"{server.url}/files/mae.pth"
    asked = len(server.asked)
    assert find(parse(f"{server.url}/files/mae.pth")) == found and len(server.asked) == asked
    with pytest.raises(ValueError, match=r"files/other\.pth: the server answered"):
        find(parse(f"{server.url}/files/other.pth"))


def test_no_token_goes_to_an_address(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    original = hub.find
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    real = huggingface_hub.file_download.http_get
    monkeypatch.setattr(
        huggingface_hub.file_download,
        "http_get",
        lambda *args, **given: (seen.append(given.get("headers") or {}), real(*args, **given))[1],
    )
    original(parse(f"{server.url}/files/mae.pth"))
    assert seen == [{}]
