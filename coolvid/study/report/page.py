"""Fills the page template with the style and scripts from the folder assets, and the data as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from coolvid.files import write_bytes

SCRIPTS = ("core", "planes", "timeline", "viewer", "maps", "curves", "main")


def write_page(out: Path, content: Mapping[str, Any]) -> int:
    """Write the page; returns its size in bytes. Raises OutputError."""
    data = render(content).encode()
    write_bytes(out, data)
    return len(data)


def render(content: Mapping[str, Any]) -> str:
    """The page as text. content: the results of summarise() and view(), and "curves"."""
    return Template(asset("page.html")).substitute(
        version=version("coolvid"),
        title=html.escape(content["name"]),
        facts=_facts(content["facts"]),
        rows="\n".join(map(_row, content["frames"])),
        style=asset("style.css"),
        script="\n".join(asset(f"{name}.js") for name in SCRIPTS),
        data=_json(content),
    )


def asset(name: str) -> str:
    """The text of a file in the folder assets."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _json(content: Mapping[str, Any]) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _facts(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts)


def _row(frame: Mapping[str, Any]) -> str:
    bits = frame["bits"]
    cells = (
        frame["index"],
        frame["type"],
        frame["order"],
        ", ".join(map(str, frame["references"])) or "–",
        frame["bytes"],
        bits.get("residue.latents", 0),
        bits.get("motion.latents", 0),
        sum(n for part, n in bits.items() if "." in part and not part.endswith(".latents")),
        bits["header"],
        _figure(frame["psnr_db"], 2),
        _figure(frame["ssim"], 4),
    )
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _figure(value: float | str | None, digits: int) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.{digits}f}"
