"""JSON and YAML that nobody should have written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files.parsing import parse_json, parse_yaml, read_json, read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is empty"),
        (b'{"a": [1, 2', "11 bytes and may be truncated"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_a_value_error_with_the_name(text: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=said) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))


def test_json_in_every_encoding_and_with_whole_pairs_is_read() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert parse_json('{"ä": 1}'.encode(encoding), "a") == {"ä": 1}
    assert parse_json(rb'"\ud83d\ude00"', "a") == "\U0001f600"
    assert parse_json(rb'"\udcff"', "a", surrogates=True) == "\udcff"


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(9), "its aliases stand for .* values, more than 100,000"),
        ("a: &a [*a]", "a value that holds itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: 1\na: 2", "line 2: 'a' comes twice"),
        ("{[1]: 2}", "line 1: a key must be a name or a number"),
        ("{{a: 1}: 2}", "line 1: a key must be a name or a number"),
        ("a: 2001-99-99", "not readable as YAML"),
        ("a: !!python/object:os.system x", "not readable as YAML"),
        ("a: [", "not readable as YAML"),
        (b"a: \xff", "not readable as YAML"),
        ("a: 1\n---\nb: 2", "not readable as YAML"),
    ],
)
def test_yaml_that_cannot_be_read_is_a_value_error_with_the_name(text: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 1000


def test_yaml_with_aliases_and_merges_in_measure_is_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "f") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }
    assert parse_yaml("\ufeffa: 1".encode(), "f") == {"a": 1}
    assert parse_yaml("", "f") is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_what_json_writes_is_read_again(value: Any) -> None:
    assert parse_json(json.dumps(value).encode(), "a") == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(text: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, "a.file")
        except ValueError as error:
            assert str(error).startswith("a.file: ")
