"""JSON and YAML of any origin: whatever is wrong is a ValueError that names the file, and nothing takes all memory."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

import yaml

MOST_NODES = 100_000  # values of a YAML file once its aliases are written out
_MARKS = (  # in this order: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, *, surrogates: bool = False) -> Any:
    """Return the content of a JSON file. Raises OSError, or ValueError that names the file, as `parse_json`."""
    return parse_json(path.read_bytes(), str(path), surrogates=surrogates)


def parse_json(text: bytes, name: str, *, surrogates: bool = False) -> Any:
    """Return what JSON text (UTF-8, -16 or -32) holds.

    `surrogates` allows half surrogate pairs in strings: Python's form of file names that are no UTF-8, which our own
    files may hold.

    Raises ValueError that names the file for text that is empty, truncated, no JSON, nested too deeply, or has
    characters that cannot be written.
    """
    try:
        content = json.loads(text)
        if not surrogates and _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: holds half a surrogate pair ({error.object[error.start]!r}).") from error
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply to be read.") from error
    except ValueError as error:  # also of bytes in no encoding, and of numbers of more than 4,300 digits
        size = f"it has {len(text):,} bytes and may be truncated" if text.strip() else "it is empty"
        raise ValueError(f"{name}: not valid JSON ({error}); {size}.") from error
    return content


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in the UTF-16 or UTF-32 that its first bytes declare.

    Raises OSError, and ValueError that names the file and the byte where it is in another encoding.
    """
    content = path.read_bytes()
    declared = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(declared)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start:,} is no {declared.upper()} ({error.reason}); save it as text in UTF-8."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path}: holds zeros (a binary file, or UTF-16 undeclared); save it as text in UTF-8.")
    return text


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises OSError, or ValueError that names the file, as `parse_yaml`."""
    return parse_yaml(path.read_bytes(), str(path))


def parse_yaml(text: bytes | str, name: str) -> Any:
    """Return what YAML text holds, as plain values.

    Raises ValueError that names the file, and the line where there is one, for text that is no YAML or no UTF-8, for a
    key that comes twice or is no plain value, and for aliases that would make more than MOST_NODES values.
    """
    try:
        loader = _Loader(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if (count := _count(node, {}, set())) > MOST_NODES:
                raise yaml.YAMLError(f"its aliases stand for {count:,} values, more than {MOST_NODES:,}")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply to be read.") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # the latter: dates that cannot be
        raise ValueError(f"{name}: not readable as YAML: {' '.join(str(error).split())}.") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML would take the last in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        line = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.YAMLError(f"{line}: a key must be a name or a number")
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.YAMLError(f"{line}: {key!r} comes twice; keep one of them")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Return the values below a node with every alias written out. Raises YAMLError for one that holds itself."""
    if id(node) in above:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a value that holds itself")
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count(part, known, above | {id(node)}) for part in parts)
    return known[id(node)]
