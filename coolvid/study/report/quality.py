"""Quality of every decoded frame against the source."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolvid.bitstream.stream import StreamReader
from coolvid.decoding.schedule import decode_stream
from coolvid.errors import ConfigError
from coolvid.events import Listener
from coolvid.media import SourceSpec, open_source
from coolvid.picture.quality import mse, psnr, psnr_planes, ssim
from coolvid.picture.types import Frame
from coolvid.study.originals import originals


@dataclass(frozen=True)
class Quality:
    """Without a source, everything is empty. by_frame: psnr_db, psnr_planes_db, ssim, mse by display index, in order.

    pictures: the requested frames of the source.
    """

    source: str | None = None
    by_frame: dict[int, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[int, Frame] = field(default_factory=dict)


def compare_with_source(
    reader: StreamReader,
    source: str | Path | None,
    source_spec: SourceSpec,
    kept: Collection[int],
    threads: int,
    listen: Listener,
) -> Quality:
    """Decode all frames and measure them. source_spec: how to read the source.

    Raises ConfigError for a source with another format, InputError for a source with fewer frames.
    """
    if source is None:
        return Quality()
    indices = sorted(info.display_index for info in reader.packets)
    with open_source(source, source_spec, indices[-1] + 1) as video:
        if video.format != reader.header.format:
            raise ConfigError(f"{video.name} is {_words(video.format)}, the stream {_words(reader.header.format)}; "
                              "give the source that was encoded")  # fmt: skip
        quality = Quality(video.name)
        pictures = decode_stream(reader, threads=threads, listen=listen)
        for index, decoded, original in zip(indices, pictures, originals(video, indices), strict=True):
            quality.by_frame[index] = _measured(original, decoded)
            if index in kept:
                quality.pictures[index] = original
    return quality


def _measured(original: Frame, decoded: Frame) -> dict[str, Any]:
    return {
        "psnr_db": psnr(original, decoded),
        "psnr_planes_db": psnr_planes(original, decoded),
        "ssim": ssim(original, decoded),
        "mse": mse(original, decoded),
    }


def _words(format: Any) -> str:
    return f"{format.width}x{format.height} {format.pixel_format.value} {format.bit_depth} bit"
