"""XML of any origin: read piece by piece, with the line of every element, and no entity is ever expanded.

A file may ask for gigabytes by entities that stand for one another ("billion laughs"), or for other files: every
declaration of an entity is refused, so only XML's own five (&amp; and so on) are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

BLOCK = 1 << 16  # bytes
MOST_DEEP = 100  # elements within one another


@dataclass(kw_only=True)
class Element:
    """One element: its name, attributes, text without what surrounds it, children, and its line in the file."""

    tag: str
    line: int
    attributes: dict[str, str]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def child(self, tag: str) -> "Element | None":
        """Return the first child of that name, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def below(self, tag: str) -> Iterator["Element"]:
        """Yield all elements of that name within this one, in their order."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.below(tag)


def read_children(path: Path, *, root: str) -> Iterator[Element]:
    """Yield the children of the outermost element, each as soon as it is complete; none is kept.

    Raises OSError, and ValueError that names the file and the line: for what is no XML, an outermost element that is
    not `root`, a declaration of an entity, and elements more than MOST_DEEP deep.
    """
    reader = _Reader(path, root)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                reader.parser.Parse(block, False)
                yield from reader.taken()
            reader.parser.Parse(b"", True)
        yield from reader.taken()
    except expat.ExpatError as error:
        said = expat.ErrorString(error.code)
        raise ValueError(f"{path}, line {error.lineno}: no XML ({said}); export the file again.") from error
    except (LookupError, UnicodeError) as error:  # an encoding that is declared and not known
        raise ValueError(f"{path}: no XML ({error}); save it in UTF-8.") from error


class _Reader:
    def __init__(self, path: Path, root: str) -> None:
        self.path, self.root = path, root
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._entity
        self._open: list[Element] = []  # the outermost first
        self._complete: list[Element] = []

    def taken(self) -> list[Element]:
        """Return the children that are complete and were not taken yet."""
        taken, self._complete = self._complete, []
        return taken

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if not self._open and tag != self.root:
            raise ValueError(f"{self.path}, line {line}: holds <{tag[:80]}>; looked for <{self.root}>.")
        if len(self._open) == MOST_DEEP:
            raise ValueError(f"{self.path}, line {line}: elements more than {MOST_DEEP} deep.")
        self._open.append(Element(tag=tag, line=line, attributes=attributes))

    def _end(self, _: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()
        if len(self._open) == 1:
            self._complete.append(element)
        elif self._open:
            self._open[-1].children.append(element)

    def _text(self, text: str) -> None:
        if len(self._open) > 1:  # else it is what stands between the children, which is not kept
            self._open[-1].text += text

    def _entity(self, name: str, *_: object) -> None:
        raise ValueError(
            f"{self.path}, line {self.parser.CurrentLineNumber}: declares the entity {name[:80]!r}; annotations need "
            "none, and entities can fill the memory or read other files. Remove the declaration."
        )
