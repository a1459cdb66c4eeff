"""Text from data, records and study files in a table: never markup, never a formula, always to be seen."""

import re

# control characters, what turns the direction of the text behind it, half surrogate pairs, no characters
_UNSEEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
# what begins a formula in spreadsheets, in full width too
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
            "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKUP = re.compile(r"([\\`*|\[\]~$])")  # $: GitHub sets what is between two as mathematics
_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is none of Markdown's
_BLOCK = re.compile(r"(\d+)([.)])(?=\s|$)|([#+=>-])")  # what begins a heading, a list or a quote


def visible(text: str) -> str:
    """Return the text with what cannot be seen, and bytes of file names that are no UTF-8, written out."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


def plain(text: str) -> str:
    """Return the text on one line."""
    return visible(" ".join(text.split()))


def markdown(text: str) -> str:
    """Return the text as GitHub's Markdown shows it letter by letter, in a line or a cell of a table."""
    found = _MARKUP.sub(r"\\\1", plain(text).replace("&", "&amp;")).replace("<", "&lt;")
    found = _EDGE.sub(r"\\_", found)
    # addresses and names of people become links by themselves
    return found.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def markdown_line(text: str) -> str:
    """Return the text as the beginning of a paragraph or of an item of a list."""
    found = markdown(text)
    match = _BLOCK.match(found)
    if match is None:
        return found
    return f"{match[1]}\\{found[len(match[1]) :]}" if match[1] else f"\\{found}"


def csv(text: str) -> str:
    """Return the text as a cell that no spreadsheet computes: a quote goes before what would begin a formula."""
    found = plain(text)
    return f"'{found}" if found.startswith(_FORMULA) and not _NUMBER.fullmatch(found) else found
