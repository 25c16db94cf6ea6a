"""Names of numbered files, as in ffmpeg: frames/%04d.png means 0000.png, 0001.png and so on in frames."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from coolvid.errors import InputError

_NUMBER = re.compile(r"%(?:0?(\d))?d")


def is_pattern(path: Path) -> bool:
    """Whether the last part of the path contains exactly one number of the form %d or %04d."""
    return len(_NUMBER.findall(path.name)) == 1


def numbered(path: Path, number: int) -> Path:
    """The file of a pattern with this number."""
    return path.with_name(_NUMBER.sub(lambda match: f"{number:0{match[1] or 1}d}", path.name))


def find_numbered(path: Path) -> list[Path]:
    """The files of a pattern by number, starting at any number. Raises InputError for none or a gap."""
    before, after = _NUMBER.sub("\0", path.name).split("\0")
    shape = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    if not path.parent.is_dir():
        raise InputError(f"no such folder: {path.parent}")
    matches = (shape.fullmatch(each.name) for each in path.parent.iterdir())
    numbers = sorted({int(match[1]) for match in matches if match and numbered(path, int(match[1])).name == match[0]})
    if not numbers:
        raise InputError(f"no file matches {path}, for example {numbered(path, 0).name}; check the pattern")
    missing = next((a + 1 for a, b in pairwise(numbers) if b != a + 1), None)
    if missing is not None:
        ends = f"{numbered(path, numbers[0]).name} to {numbered(path, numbers[-1]).name}"
        raise InputError(
            f"{numbered(path, missing)} is missing from the sequence {ends}; restore it or renumber the files"
        )
    return [numbered(path, n) for n in numbers]
