"""The field tables of docs/BITSTREAM.md, generated from the declarations that read and write the stream."""

from __future__ import annotations

import re

from .headers import (
    ARCHITECTURE,
    ASPECT,
    COLOR,
    DISPLAY,
    FRACTION,
    FRAME,
    LIGHT,
    MASTERING,
    PLUGIN,
    VIDEO_FORMAT,
    StreamHeader,
)
from .packet import PacketHeader
from .records import Layout
from .values import VALUE_TAGS

LAYOUTS: tuple[Layout, ...] = (
    StreamHeader.layout(),
    VIDEO_FORMAT,
    FRACTION,
    COLOR,
    DISPLAY,
    ASPECT,
    MASTERING,
    LIGHT,
    FRAME,
    ARCHITECTURE,
    PLUGIN,
    PacketHeader.layout(),
)
_MARK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def field_tables() -> dict[str, str]:
    """Markdown tables by record name; `Value` lists the tag bytes of plugin options."""
    rows = "".join(f"| `{tag}` | {meaning} |\n" for tag, meaning in VALUE_TAGS)
    return {layout.name: layout.table() for layout in LAYOUTS} | {"Value": f"| tag | value |\n|---|---|\n{rows}"}


def refresh(text: str) -> str:
    """The text with new tables between `<!-- table NAME -->` and `<!-- end -->`. KeyError: there is no such table."""
    tables = field_tables()
    return _MARK.sub(lambda match: match[1] + tables[match[2]] + match[3], text)
