"""The stream header: what all packets share, and the table of frame architectures.

Bytes: MAGIC, format version, size of the body (varint), body, CRC-32C of all before it. The body has StreamHeader's
fields; in format 5 those of DisplayInfo come first. The table of configurations is a string of bytes, deflated against
DICTIONARY where that is shorter.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from coolvid.codec.architecture import FINAL_UPSAMPLINGS, Architecture, FrameArchitecture, PluginRecord
from coolvid.errors import ConfigError, StreamError, UnsupportedStream
from coolvid.picture.types import (
    BIT_DEPTHS,
    ChromaSiting,
    ColorInfo,
    DisplayInfo,
    FrameType,
    LightLevel,
    MasteringDisplay,
    PixelFormat,
    VideoFormat,
)

from .crc import CRC_BYTES, is_sealed, sealed
from .dictionary import DICTIONARY
from .records import (
    BitReader,
    BitWriter,
    FieldCode,
    Flag,
    Golomb,
    Layout,
    Many,
    Maybe,
    OneOf,
    Record,
    SoFar,
    U,
    When,
    coded,
)
from .values import Usual, Value, read_varint, write_varint

MAGIC = b"\x8fCVD"
FORMAT_VERSION = 5
PLAIN_VERSION = 4
MAX_FRAMES = (1 << 24) - 1
MAX_CONFIGURATIONS = 255
MAX_TABLE = 1 << 20
USUAL_FPS = tuple(
    Fraction(*pair)
    for pair in ((24, 1), (25, 1), (30, 1), (50, 1), (60, 1), (30000, 1001), (24000, 1001), (60000, 1001), (1, 1))
)
USUAL_COLORS = (ColorInfo(), ColorInfo(1, 1, 1, 1), ColorInfo(6, 6, 6, 1), ColorInfo(1, 13, 0, 2))

PLUGIN = Layout(
    PluginRecord,
    {
        "name": (Value(str), "entry-point name"),
        "version": (U(8), "of the plugin"),
        "options": (Value(tuple), "defined by the plugin"),
    },
)
_SPAN = Many(U(8), 2)
_OPTIONAL_SPAN = Usual((None,), 8, _SPAN)
_ARCHITECTURE: dict[str, tuple[FieldCode, str]] = {
    "latent_resolution": (_SPAN, "finest and coarsest normal grid, log2 downsampling"),
    "hyperlatent_resolution": (_OPTIONAL_SPAN, "the same for hyperlatents"),
    "ifce_resolution": (_OPTIONAL_SPAN, "grids with inter-feature contexts"),
    "n_ifce": (U(8), "inter-feature contexts"),
    "n_context": (U(8), "spatial contexts"),
    "common_randomness": (OneOf((False, True), 8), "noise planes enter the synthesis"),
    "final_upsampling": (OneOf(FINAL_UPSAMPLINGS, 8), "from the finest grid to the frame"),
    "n_out": (U(8), "output planes"),
    "arm": (PLUGIN, "entropy model"),
    "upsampling": (PLUGIN, "grids to planes"),
    "synthesis": (PLUGIN, "planes to outputs"),
}
ARCHITECTURE = Layout(Architecture, _ARCHITECTURE)


def _unless_intra(code: FieldCode) -> FieldCode:
    return When(lambda known: known["frame_type"] is not FrameType.I, "not I", code)


FRAME = Layout(
    FrameArchitecture,
    {
        "frame_type": (OneOf(tuple(FrameType), 8), "I frames have no motion and no warper"),
        "residue": (ARCHITECTURE, "Cool-chic of the residue"),
        "motion": (_unless_intra(ARCHITECTURE), "Cool-chic of the flow"),
        "warper": (_unless_intra(PLUGIN), "motion compensation"),
    },
)


class Table(FieldCode):
    """The frame architectures: a byte with their number, then each; all deflated where that is shorter."""

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        if not 1 <= len(value) <= MAX_CONFIGURATIONS:
            raise ConfigError(f"{len(value)} frame configurations; a stream can carry 1..{MAX_CONFIGURATIONS}")
        plain = BitWriter()
        Many(FRAME, U(8)).write(plain, value, {})
        content = plain.getvalue()
        engine = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
        deflated = engine.compress(content) + engine.flush()
        is_shorter = len(deflated) < len(content)
        writer.write(int(is_shorter), 1)
        writer.write(0, -writer.n_bits % 8)
        writer.write_bytes(deflated if is_shorter else content)

    def read(self, reader: BitReader, so_far: SoFar) -> tuple[FrameArchitecture, ...]:
        is_deflated = reader.read(1)
        if reader.read(-reader.position % 8):
            raise StreamError("padding before the table is not zero; the stream is damaged")
        content = reader.read_bytes(reader.n_left // 8)
        plain = BitReader(_inflate(content) if is_deflated else content)
        table: tuple[FrameArchitecture, ...] = Many(FRAME, U(8)).read(plain, {})
        plain.finish()
        if not table:
            raise StreamError("the stream header has no frame configuration; the stream is damaged")
        return table

    def text(self) -> str:
        return "flag: deflated; padding to a byte; u(8) count × FrameArchitecture"


def _inflate(content: bytes) -> bytes:
    engine = zlib.decompressobj(-15, zdict=DICTIONARY)
    try:
        plain = engine.decompress(content, MAX_TABLE)
    except zlib.error as error:
        raise StreamError(f"the table of configurations does not inflate ({error}); the stream is damaged") from error
    if not engine.eof or engine.unused_data or engine.unconsumed_tail:
        raise StreamError("the table of configurations has a wrong size; the stream is damaged")
    return plain


VIDEO_FORMAT = Layout(
    VideoFormat,
    {
        "height": (U(14, 1), "pixels"),
        "width": (U(14, 1), "pixels"),
        "pixel_format": (OneOf(tuple(PixelFormat), 2), "arrangement of the planes"),
        "bit_depth": (OneOf(BIT_DEPTHS, 1), "of every sample"),
    },
)
COLOR = Layout(
    ColorInfo,
    {
        "primaries": (U(8), "ITU-T H.273 code point"),
        "transfer": (U(8), "ITU-T H.273 code point"),
        "matrix": (U(8), "ITU-T H.273 code point"),
        "range": (U(2), "0 unspecified, 1 limited, 2 full"),
    },
)
FRACTION = Layout(
    Fraction,
    {
        "numerator": (U(32, 1), "frames"),
        "denominator": (U(32, 1), "seconds"),
    },
)
ASPECT = Layout(
    Fraction,
    {
        "numerator": (U(12, 1), "width of a pixel"),
        "denominator": (U(12, 1), "its height in the same unit"),
    },
    name="PixelAspect",
)
MASTERING = Layout(
    MasteringDisplay,
    {
        "colors": (Maybe(Many(Many(U(16), 2), 4)), "(x, y) of red, green, blue, white in 1/50000: 5..37000, 5..42000"),
        "luminance": (Maybe(Many(U(32), 2)), "(least, greatest) in 1/10000 cd/m²: 0..50000 < 50000..100000000"),
    },
)
LIGHT = Layout(
    LightLevel,
    {
        "max_cll": (U(16), "MaxCLL in cd/m²"),
        "max_fall": (U(16), "MaxFALL in cd/m²"),
    },
)
DISPLAY = Layout(
    DisplayInfo,
    {
        "pixel_aspect": (Usual((Fraction(1),), 1, ASPECT), "width / height of a pixel"),
        "chroma_siting": (OneOf(tuple(ChromaSiting), 3), "ChromaLocType of ITU-T H.273, plus 1; of 4:2:0"),
        "mastering": (Maybe(MASTERING), "SMPTE ST 2086; states at least one field"),
        "light": (Maybe(LIGHT), "CTA-861.3; 0 in one of the fields: not stated"),
    },
)


@dataclass(frozen=True)
class StreamHeader(Record):
    """What all frames of a stream share. n_frames is 0 (unknown) until the writer has finished.

    display: how to show the pictures; if it says nothing, the header has PLAIN_VERSION, without it.
    """

    format: VideoFormat = coded(VIDEO_FORMAT, "picture size and samples")  # noqa: RUF009
    fps: Fraction = coded(Usual(USUAL_FPS, 4, FRACTION), "frames per second")  # noqa: RUF009
    color: ColorInfo = coded(Usual(USUAL_COLORS, 3, COLOR), "colour description")
    n_frames: int = coded(U(24), "packets in the stream, 0 if unknown")
    gop: int = coded(Golomb(3, 4096, 1), "frames of a B hierarchy")
    intra_period: int = coded(Golomb(3, 1_000_000), "frames from one I to the next; 0: only the first")
    low_delay: bool = coded(Flag(), "no frame refers to a later one")
    configurations: tuple[FrameArchitecture, ...] = coded(Table(), "frame architectures; a packet names its entry")
    display: DisplayInfo = DisplayInfo()

    @property
    def version(self) -> int:
        """The oldest format that can hold this header."""
        return PLAIN_VERSION if self.display == DisplayInfo() else FORMAT_VERSION

    def pack(self) -> bytes:
        """The whole header; its size does not depend on n_frames. Raises ConfigError for values that do not fit."""
        writer = BitWriter()
        if self.version > PLAIN_VERSION:
            DISPLAY.write(writer, self.display, {})
        self.write(writer)
        body = writer.getvalue()
        return sealed(MAGIC + bytes([self.version]) + write_varint(len(body)) + body)

    @classmethod
    def parse(cls, data: bytes) -> tuple[StreamHeader, int]:
        """(header, its size in bytes) at the start of data. Raises StreamError, UnsupportedStream."""
        if data[: len(MAGIC)] != MAGIC:
            raise StreamError(f"this is not a coolvid stream: it starts with {data[:4].hex() or 'nothing'}")
        if len(data) <= len(MAGIC):
            raise StreamError("the stream ends inside its header; it is truncated")
        version = data[len(MAGIC)]
        if version not in (PLAIN_VERSION, FORMAT_VERSION):
            raise UnsupportedStream(
                f"stream format {version}; this release reads formats {PLAIN_VERSION} and {FORMAT_VERSION}; "
                f"install {'a newer' if version > FORMAT_VERSION else 'an older'} coolvid"
            )
        size, start = read_varint(data, len(MAGIC) + 1)
        end = start + size + CRC_BYTES
        if size > MAX_TABLE or end > len(data):
            raise StreamError(
                f"a stream header of {size} bytes, but only {len(data) - start} are left; the stream is damaged"
            )
        if not is_sealed(data[:end]):
            raise StreamError("the stream header does not match its checksum; the stream is damaged")
        reader = BitReader(data[start : start + size])
        display = DISPLAY.read(reader, {}) if version > PLAIN_VERSION else DisplayInfo()
        header = replace(super().read(reader), display=display)
        reader.finish()
        if header.version != version:
            raise StreamError(f"a stream of format {version} that says nothing about display; the stream is damaged")
        return header, end

    @classmethod
    def unpack(cls, data: bytes) -> StreamHeader:
        """Inverse of pack(). Raises StreamError."""
        header, end = cls.parse(data)
        if end != len(data):
            raise StreamError(f"{len(data) - end} bytes follow the stream header")
        return header
