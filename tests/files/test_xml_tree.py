"""Reading XML of any origin: piece by piece, with lines, and without entities."""

import itertools
from pathlib import Path

import pytest

from files.xml_tree import MOST_DEEP, read_children

LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE a [
 <!ENTITY b "ha">
 <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
]>
<a><x>&c;</x></a>"""


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_children_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, '<?xml version="1.0"?>\n<a>\n <x k="1"> one &amp; <y>two</y></x>\n loose\n <z/></a>')
    x, z = read_children(path, root="a")
    assert (x.tag, x.line, x.attributes, x.text) == ("x", 3, {"k": "1"}, "one &")
    assert x.child("y") is not None and x.child("y") == next(x.below("y")) and x.child("q") is None
    assert (z.tag, z.line, z.text, z.children) == ("z", 5, "", [])


def test_children_come_before_the_file_is_read(tmp_path: Path) -> None:
    """A fault at the end of 300 kB is met after the first children are given."""
    path = write(tmp_path, "<a>" + "<x><y>1</y></x>" * 20_000 + "<b></a>")
    assert len(list(itertools.islice(read_children(path, root="a"), 1000))) == 1000
    with pytest.raises(ValueError, match=r"a\.xml, line 1: no XML \(mismatched tag\)"):
        list(read_children(path, root="a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"line 3: declares the entity 'b'; annotations need none"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "line 1: declares the entity 'x'"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/x">%x;]><a/>', "line 1: declares the entity 'x'"),
        ("<a>&nbsp;</a>", r"line 1: no XML \(undefined entity\)"),
        ("{}", r"line 1: no XML \(not well-formed"),
        ("", r"no XML \(no element found\)"),
        ("<a><b>", r"no XML \(no element found\)"),
        ("<b/>", r"line 1: holds <b>; looked for <a>"),
        ("<a>" * (MOST_DEEP + 1), "elements more than 100 deep"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', r"no XML \(unknown encoding"),
    ],
)
def test_what_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        list(read_children(write(tmp_path, text), root="a"))
    assert "a.xml" in str(caught.value)


def test_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "iso-8859-1"):
        declared = "iso-8859-1" if encoding.startswith("iso") else encoding.removesuffix("-sig")
        path = write(tmp_path, f'<?xml version="1.0" encoding="{declared}"?><a><x>é</x></a>'.encode(encoding))
        assert [x.text for x in read_children(path, root="a")] == ["é"]
