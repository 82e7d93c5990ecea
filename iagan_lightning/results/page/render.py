"""The template filled: style, script and data go into one file."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any


def render(data: dict[str, Any], title: str, version: str) -> str:
    """Return the page; ``version`` is that of the package that makes it.

    The data is one block of JSON in which no ``<`` is left, so that no name in it can end the block; the script
    makes text nodes of it, never markup.

    Example:
        >>> page = render({"runs": ["</script><b>"]}, "a < b", "1.0")
        >>> "</script><b>" in page, "<title>a &lt; b</title>" in page
        (False, True)
    """
    here = files("iagan_lightning.results.page")
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "TITLE": html.escape(title),
        "VERSION": version,
        "STYLE": (here / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": (here / "page.js").read_text(encoding="utf-8"),
        "DATA": content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    }
    page = (here / "page.html").read_text(encoding="utf-8")
    # In one pass over the template: what a part contains is never taken for a place of another.
    pieces = page.split("@@")
    whole = "".join(parts.get(piece, piece) if index % 2 else piece for index, piece in enumerate(pieces))
    return whole.encode("utf-8", "backslashreplace").decode()  # names of files can be in another encoding
