"""Names of several images: frames/%04d.png, as in ffmpeg for 0000.png, 0001.png and so on; frames/*.png; a folder.

A file that has such a name is that file.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from coolvid.errors import InputError

IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".dpx", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg", ".jxl", ".pam", ".pbm", ".pcx",
    ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
))  # fmt: skip

_NUMBER = re.compile(r"%(?:0?(\d))?d")
_WILD = re.compile(r"[*?]")


def is_sequence(path: Path) -> bool:
    """Whether a path means several images: a folder, or a pattern with %d or * that is not the name of a file."""
    return path.is_dir() or (not path.exists() and (is_pattern(path) or bool(_WILD.search(path.name))))


def find_images(path: Path) -> list[Path]:
    """The images of a sequence (see is_sequence). Raises InputError when there are none, or a number is missing."""
    if path.is_dir():
        return _in_folder(path)
    return find_numbered(path) if is_pattern(path) else _matching(path)


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
    matches = (shape.fullmatch(each.name) for each in _listed(path.parent))
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


def _in_folder(folder: Path) -> list[Path]:
    """The images of a folder, all with one suffix, in natural order."""
    images = [each for each in _visible(folder) if each.suffix.lower() in IMAGE_SUFFIXES]
    suffixes = sorted({each.suffix.lower() for each in images})
    if not images:
        raise InputError(f"{folder} is a folder without images; give a file, or a folder of images such as .png")
    if len(suffixes) > 1:
        raise InputError(
            f"{folder} holds images of several kinds ({', '.join(suffixes)}); choose one, for example '{folder}/*"
            f"{suffixes[0]}'"
        )
    return sorted(images, key=_natural)


def _matching(path: Path) -> list[Path]:
    """The files of a folder whose names match a pattern with * and ?, in natural order."""
    pattern = path.name.replace("[", "[[]")
    images = [each for each in _visible(path.parent) if fnmatchcase(each.name, pattern)]
    if not images:
        raise InputError(f"no file matches {path}; check the pattern")
    return sorted(images, key=_natural)


def _visible(folder: Path) -> list[Path]:
    return [each for each in _listed(folder) if each.is_file() and not each.name.startswith(".")]


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name, flags=re.ASCII)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
