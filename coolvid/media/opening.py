"""Files as FFmpeg opens them: a name is always a file, and one video stream of it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from coolvid.errors import ConfigError, InputError

from .whole import lacks_its_index

AV_ERRORS = (av.error.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)
"""What PyAV raises for files that it cannot read or write."""

# image2 would take `%03d` in a name for a pattern; playlists would open addresses that they name.
_FILES_ONLY = {"pattern_type": "none", "protocol_whitelist": "file"}
_STRICT = {"err_detect": "explode"}  # otherwise, what is missing of a photo becomes grey
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails


def file_url(path: Path) -> str:
    """The path for FFmpeg, which would take `12:30.mp4` for a protocol and `http:clip.mp4` for an address."""
    return f"file:{path}"


def open_container(source: Path | Any, name: str, format: str | None = None) -> InputContainer:
    """A file with video (or an object with read()), opened by PyAV. Raises InputError."""
    is_file = isinstance(source, Path)
    options: dict[str, Any] = {"container_options": _FILES_ONLY} if is_file else {}
    try:
        container: InputContainer = av.open(
            file_url(source) if is_file else source, "r", format=format, metadata_errors="replace", **options
        )
    except AV_ERRORS as error:
        if is_file and lacks_its_index(source):
            raise InputError(
                f"{name} is truncated: an mp4 without its index (moov); copy or download it again"
            ) from error
        raise unreadable(name, error) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{name} contains no video")
    if is_photo(container):
        container.streams.video[0].codec_context.options = _STRICT
    return container


def choose_stream(container: InputContainer, name: str, number: int | None = None) -> Any:
    """The video stream of this number (as ffprobe counts), else the default one, else the best in FFmpeg's view.

    Attached pictures (cover art, thumbnails) are never the video. Raises ConfigError for a number that is not that of a
    video stream, InputError for a file whose only video cannot be taken.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    if not videos:
        raise InputError(f"{name} contains no video, only a cover picture")
    if number is not None:
        return _numbered(videos, name, number)
    defaults = [stream for stream in videos if stream.disposition & Disposition.default] or videos
    best = container.streams.best("video")
    chosen = next((stream for stream in defaults if best is not None and stream.index == best.index), defaults[0])
    if chosen.disposition & Disposition.dependent:
        raise InputError(f"{name} is a picture of several tiles, which are not supported; convert it to .png first")
    return chosen


def describe_choice(container: InputContainer, chosen: Any) -> str:
    """What was chosen of a file with several video streams, in words; empty when there was no choice."""
    others = [_words(stream) for stream in container.streams.video if stream.index != chosen.index]
    return f"stream {_words(chosen)}, not {' or '.join(others)}" if others else ""


def is_photo(container: InputContainer) -> bool:
    """Whether only the first picture counts: a JPEG, to which phones append a depth or gain map as a second one."""
    context = container.streams.video[0].codec_context
    return container.format.name in ("jpeg_pipe", "image2") and context is not None and context.name == "mjpeg"


def unreadable(name: str, error: BaseException) -> InputError:
    """An error from PyAV as an InputError."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(f"{name} is not a readable video or image: {reason}")


def _numbered(videos: Sequence[Any], name: str, number: int) -> Any:
    for stream in videos:
        if stream.index == number:
            return stream
    raise ConfigError(f"stream {number} of {name} is no video; choose one of: {', '.join(map(_words, videos))}")


def _words(stream: Any) -> str:
    """0 (h264, 64x48); 1 (mjpeg, 100x100, a cover picture)."""
    context = stream.codec_context
    facts = ["no decoder"] if context is None else [context.name, f"{context.width}x{context.height}"]
    facts += ["a cover picture"] if stream.disposition & _COVER else []
    return f"{stream.index} ({', '.join(facts)})"
