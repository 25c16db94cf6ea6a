"""Curves from a file of rate and quality points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coolvid.errors import InputError, printable
from coolvid.files import read_text
from coolvid.values import parse_json

QUALITIES = ("psnr_db", "ssim", "ms_ssim", "vmaf")


def read_points(path: str | Path) -> dict[str, Any]:
    """Curves and BD-rates from JSON: the output of `coolvid compare`, or a list of points.

    A point is an object with codec, bpp and at least one of QUALITIES, at the top level or inside "quality"; setting
    and n_bytes (or bytes) are shown if given. Other points are ignored.
    Raises InputError for a file that cannot be read or has no points.
    """
    found = _load(Path(path))
    about = found if isinstance(found, Mapping) else {}
    points = [point for each in _listed(found) if (point := _point(each)) is not None]
    if not points:
        raise InputError(f"{path} has no points; each needs codec, bpp, and one of {', '.join(QUALITIES)}")
    points.sort(key=lambda point: float(point["bpp"]))
    codecs = dict.fromkeys(point["codec"] for each in _listed(found) if (point := _point(each)) is not None)
    return {
        "source": printable(_inside(about, "source").get("name", "")),
        "curves": [{"codec": codec, "points": [p for p in points if p["codec"] == codec]} for codec in codecs],
        "bd_rates": [rate for each in _sequence(about.get("bd_rates")) if (rate := _rate(each)) is not None],
    }


def _load(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); give the comparison.json of `coolvid compare`") from error


def _listed(found: Any) -> list[Any]:
    """All points, from one list or from curves."""
    if not isinstance(found, Mapping):
        return list(_sequence(found))
    curves = [each for each in _sequence(found.get("curves")) if isinstance(each, Mapping)]
    return [*_sequence(found.get("points")), *(point for curve in curves for point in _sequence(curve.get("points")))]


def _point(given: Any) -> dict[str, Any] | None:
    """The point in the page's form; None if it is not valid."""
    if not isinstance(given, Mapping):
        return None
    flat = {**given, **_inside(given, "quality")}
    qualities = {name: value for name in QUALITIES if (value := _finite(flat.get(name))) is not None}
    rate = _finite(flat.get("bpp"))
    if not flat.get("codec") or not qualities or rate is None or rate <= 0:
        return None
    n_bytes = _finite(flat.get("n_bytes", flat.get("bytes")))
    return {
        "codec": printable(flat["codec"]),
        "setting": printable(flat.get("setting", "")),
        "bytes": n_bytes,
        "bpp": rate,
        **qualities,
    }


def _rate(given: Any) -> dict[str, Any] | None:
    if not isinstance(given, Mapping) or not given.get("codec") or not given.get("anchor"):
        return None
    percent = _finite(given.get("percent"))
    return {"codec": printable(given["codec"]), "anchor": printable(given["anchor"]), "percent": percent}


def _inside(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = given.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _sequence(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list) else ()


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < math.inf else None
