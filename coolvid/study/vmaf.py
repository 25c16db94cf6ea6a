"""VMAF, computed by an external ffmpeg with libvmaf, which is searched for when needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

from coolvid.errors import CoolvidError, InputError, MissingExtra
from coolvid.media import open_sink
from coolvid.picture.types import ColorInfo, Frame, PixelFormat
from coolvid.values import parse_json

HOW_TO_GET = "VMAF needs an ffmpeg with libvmaf: pip install 'coolvid[vmaf]', or put such an ffmpeg on the PATH"


@cache
def find_ffmpeg() -> str:
    """Path of the first ffmpeg with libvmaf: on the PATH, else from the package imageio-ffmpeg.

    Raises MissingExtra, which lists what was found and what to install.
    """
    without = []
    for candidate in _candidates():
        if " libvmaf " in _run(candidate, "-hide_banner", "-filters").stdout:
            return candidate
        without.append(candidate)
    found = f"{' and '.join(without)} {'lacks' if len(without) == 1 else 'lack'} it" if without else "no ffmpeg found"
    raise MissingExtra(f"{HOW_TO_GET} ({found})")


def vmaf(source: Iterable[Frame], decoded: Iterable[Frame], fps: Fraction, ffmpeg: str | None = None) -> float:
    """Mean VMAF of a decoded video, at most 100, with ffmpeg's default model.

    ffmpeg: the executable (None: find_ffmpeg()). Both videos are written to a temporary folder. Raises MissingExtra
    without ffmpeg, InputError for RGB or no frames, CoolvidError with ffmpeg's message when it fails.
    """
    executable = ffmpeg or find_ffmpeg()
    with tempfile.TemporaryDirectory(prefix="coolvid-vmaf-") as name:
        folder = Path(name)
        _write(source, folder / "source.y4m", fps)
        _write(decoded, folder / "decoded.y4m", fps)
        return _measure(executable, folder)


def _candidates() -> list[str]:
    found = [path for path in (shutil.which("ffmpeg"),) if path]
    try:
        import imageio_ffmpeg  # type: ignore[import-not-found, import-untyped, unused-ignore]

        return [*found, imageio_ffmpeg.get_ffmpeg_exe()]
    except (ImportError, RuntimeError):
        return found


def _write(frames: Iterable[Frame], path: Path, fps: Fraction) -> None:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("VMAF needs at least 1 frame, and the video has none")
    if first.format.pixel_format is PixelFormat.RGB:
        raise InputError("VMAF needs luma, but this video is RGB; convert it to YUV first")
    with open_sink(path, first.format, fps, ColorInfo()) as sink:
        sink.write(first)
        for frame in iterator:
            sink.write(frame)


def _measure(executable: str, folder: Path) -> float:
    threads = os.cpu_count() or 1
    graph = f"[0:v][1:v]libvmaf=log_fmt=json:log_path=vmaf.json:n_threads={threads}"
    inputs = ("-i", "decoded.y4m", "-i", "source.y4m")
    result = _run(executable, "-v", "error", "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-", folder=folder)
    log = folder / "vmaf.json"
    if result.returncode or not log.exists():
        raise CoolvidError(
            f"{executable} could not compute VMAF: {(result.stderr or 'no reason given').strip()[-300:]}"
        )
    return float(parse_json(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def _run(executable: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Raises MissingExtra when the program cannot be started."""
    try:
        return subprocess.run([executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingExtra(f"cannot run {executable}: {error.strerror or error}; {HOW_TO_GET}") from error
