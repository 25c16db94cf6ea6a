"""The first line of y4m, where FFmpeg would take 25 frames per second for a rate that it does not give."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from coolvid.errors import InputError
from coolvid.picture.rate import problem_of

from .layout import make_format

MAGIC = b"YUV4MPEG2"
MAX_HEADER = 4096


def check_y4m(path: Path, name: str, fps: Fraction | None) -> None:
    """Check the first line of a file if it is y4m, see check_header."""
    with path.open("rb") as file:
        header = file.readline(MAX_HEADER)
    if header.startswith(MAGIC):
        check_header(header, name, fps)


def check_header(header: bytes, name: str, fps: Fraction | None) -> None:
    """Raises InputError for a line without size or with one that no source may have, and for a rate that neither
    the line nor fps gives."""
    values = {field[:1]: field[1:].decode("ascii", "replace") for field in header.split()[1:]}
    width, height = (re.fullmatch(r"\d{1,20}", values.get(side, ""), re.ASCII) for side in (b"W", b"H"))
    if width is None or height is None:
        raise InputError(f"{name} does not state its frame size; its first line must contain W352 and H288")
    make_format(name, (int(width[0]), int(height[0])))
    rate = re.fullmatch(r"(\d+):(\d+)", values.get(b"F", ""), re.ASCII)
    if fps is None and (rate is None or not int(rate[1]) or not int(rate[2])):
        raise InputError(f"{name} does not state its frame rate; give it (--fps 30)")
    stated = Fraction(int(rate[1]), int(rate[2])) if fps is None and rate is not None else None
    if stated is not None and (problem := problem_of(stated)):
        raise InputError(f"{name}: frame rate {stated} is not supported; {problem}, or give another (--fps 30)")
