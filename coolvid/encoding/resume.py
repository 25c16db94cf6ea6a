"""State of an interrupted encode: <out>.part with its finished frames, and the note <out>.part.toml.

The note holds the settings, and a digest of every source frame that was coded. It is written before the part, and a
digest before its packet, so that a process which is killed at any moment leaves a part that its note describes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import Packet
from coolvid.bitstream.stream import StreamReader, StreamWriter
from coolvid.codec.gop import CodingStep
from coolvid.errors import InputError, StreamError, tell_how_to_resume
from coolvid.files import (
    PART,
    check_writable,
    discard,
    failure,
    growing,
    is_in_place,
    locked,
    open_lines,
    part_of,
    read_text,
    sync,
    write_text,
)
from coolvid.picture.types import Frame
from coolvid.settings.config import EncodeConfig
from coolvid.settings.toml import settings_of_bytes, to_toml
from coolvid.values import parse_toml

NOTE = f"{PART}.toml"
DIGEST_BYTES = 8
Settings = dict[str, Any]
Digests = dict[int, str]


def run_settings(config: EncodeConfig, origin: Mapping[str, Any]) -> Settings:
    """Everything except the frames that decides the bytes of an encode. origin: what was read, and how."""
    source = {name: _plain(value) for name, value in origin.items() if value is not None}
    return {**settings_of_bytes(config), "source": source}


def _plain(value: Any) -> Any:
    """A value as TOML has it; names that are not UTF-8 are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return list(value) if isinstance(value, tuple) else value


def frame_digest(frame: Frame) -> str:
    """64 bits that identify the samples and the format of a source frame, as 16 hexadecimal digits."""
    state = hashlib.blake2b(repr(frame.format).encode(), digest_size=DIGEST_BYTES)
    for plane in frame.planes:
        state.update(plane.astype("<u2").tobytes())
    return state.hexdigest()


def note_of(out: str | Path) -> Path:
    """The note beside the part of an output."""
    return Path(f"{out}{NOTE}")


@contextmanager
def unfinished(out: str | Path, settings: Settings, resume: bool) -> Iterator[Unfinished]:
    """The state of an encode to `out`, locked against others. Raises OutputError and, for resume, InputError."""
    with locked(out):
        yield Unfinished(Path(out), settings, resume)


class Unfinished:
    """What an earlier run left of an encode, and what this one adds.

    First kept() with the header of this run, then writing(); same() checks the frames of the source as they are read.
    problem: why the earlier run's part is not kept to its end; "" if it is.
    """

    def __init__(self, out: Path, settings: Settings, resume: bool) -> None:
        self.problem = ""
        self._out, self._part, self._note, self._settings = out, part_of(out), note_of(out), settings
        self._resumes = resume
        self._kept: list[Packet] = []
        self._after = self._n_finished = 0
        self._header = b""
        self._is_refused = False
        check_writable(out)
        if not is_in_place(out):
            check_writable(self._note)
        self._digests = self._read_note() if resume else {}

    def _read_note(self) -> Digests:
        """The digests of the earlier run, which had the same settings. Raises InputError."""
        if is_in_place(self._out) or not self._part.exists():
            raise InputError(f"nothing to resume: there is no {self._out}{PART}")
        try:
            text = read_text(self._note)
            found = parse_toml(text[: text.rfind("\n") + 1])  # a full disk may have cut the last line
            digests = {int(index): str(digest) for index, digest in found.pop("frames", {}).items()}
        except (OSError, ValueError):
            found, digests = None, {}
        if problem := _difference(found or None, self._settings):
            raise InputError(f"{self._part} {problem}; resume with the earlier settings, or start again without resume")
        return digests

    def same(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames, each compared with what the earlier run coded. Raises InputError at the first that differs."""
        earlier = dict(self._digests)
        for i, frame in enumerate(frames):
            if i in earlier and earlier[i] != frame_digest(frame):
                self._is_refused = True
                raise InputError(
                    f"frame {i} of the source differs from the one that {self._part} was made from; resume with the "
                    "earlier source, or start again without resume"
                )
            yield frame

    def kept(self, header: StreamHeader, steps: Sequence[CodingStep]) -> list[Packet]:
        """Finished frames of an earlier run of this encode, up to the first that is damaged. Raises InputError."""
        if not self._resumes:
            return []
        reader = self._reader(header)
        infos, self.problem = reader.sound_packets()
        for i, (step, info) in enumerate(zip(steps, infos, strict=False)):
            if info.display_index != step.display_index or not {*info.references} <= {*step.references}:
                raise InputError(
                    f"{self._part} holds other frames than these settings plan; start again without resume"
                )
            if info.display_index not in self._digests:
                self.problem = f"{self._note} has no digest of frame {info.display_index}"
                break
            self._kept.append(Packet(reader.read(i), info))
        self._n_finished = len(self._kept)
        self._after = reader.end_of(self._n_finished) if self._kept else 0
        return self._kept

    def _reader(self, header: StreamHeader) -> StreamReader:
        """The part. The settings tell its header, so that a damaged one costs no frame."""
        try:
            data = self._part.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {self._part}: {error.strerror or error}") from error
        try:
            reader = StreamReader(data, partial=True)
        except StreamError:
            self._header = header.pack()
            return StreamReader(self._header + data[len(self._header) :], partial=True)
        if reader.header != header:
            raise InputError(
                f"{self._part} was made from another video; resume with that one, or start again without resume"
            )
        return reader

    @contextmanager
    def writing(self, header: StreamHeader) -> Iterator[PartWriter]:
        """Write the rest of the part, which gets its final name when the block ends well.

        After any error the part stays if it holds a finished frame, and a note on the error says how to go on; else
        nothing is left.
        """
        try:
            with self._noting() as lines, growing(self._out, self._is_worth_keeping, after=self._after) as file:
                if self._kept:
                    file.seek(0)
                    file.write(self._header)
                    file.seek(self._after)
                yield PartWriter(self, StreamWriter(file, header, self._kept), file, lines)
        except BaseException as error:
            if self._is_worth_keeping() and not self._is_refused:
                frames = f"{self._n_finished} finished frame{'' if self._n_finished == 1 else 's'}"
                tell_how_to_resume(error, f"{self._part} holds {frames}")
            raise

    def _is_worth_keeping(self) -> bool:
        return self._n_finished > 0 and not is_in_place(self._out)

    @contextmanager
    def _noting(self) -> Iterator[TextIO | None]:
        """The note of this run, to which digests are appended. It is deleted when there is no part."""
        if is_in_place(self._out):  # nothing to resume
            yield None
            return
        if not self._kept:
            discard(self._out)  # before its note, which is to describe the part at every moment
        digests = {packet.info.display_index: self._digests[packet.info.display_index] for packet in self._kept}
        lines = None
        try:
            write_text(self._note, f"{to_toml(self._settings)}\n[frames]\n{_lines(digests)}")
            lines = open_lines(self._note, append=True)
            yield lines
        finally:
            with suppress(OSError):  # a full disk, which is known already
                if lines is not None:
                    lines.close()
            if not self._part.exists():
                self._note.unlink(missing_ok=True)

    def count(self) -> None:
        """One more frame is finished."""
        self._n_finished += 1


class PartWriter:
    """Stores the finished frames of an encode."""

    def __init__(self, state: Unfinished, writer: StreamWriter, file: IO[bytes], lines: TextIO | None) -> None:
        self._state, self._writer, self._file, self._lines = state, writer, file, lines

    def keep(self, step: CodingStep, frame: Frame, packet: Packet) -> None:
        """Store the packet of a source frame, after the frame's digest. Raises OutputError."""
        if self._lines is not None:
            try:
                self._lines.write(_lines({step.display_index: frame_digest(frame)}))
                sync(self._lines)
            except OSError as error:
                raise failure(self._lines.name, error) from error
        self._writer.append(packet)
        sync(self._file)
        self._state.count()

    def close(self) -> int:
        """Finish the stream; its size in bytes. Raises OutputError."""
        return self._writer.close()


def _lines(digests: Digests) -> str:
    return "".join(f'{index} = "{digest}"\n' for index, digest in digests.items())


def _difference(kept: Settings | None, settings: Settings) -> str:
    """Why the encode cannot resume; empty if it can."""
    if kept is None:
        return f"has no readable {NOTE} with its settings"
    before, now = _flat(kept), _flat(settings)
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = (f"{name} {before.get(name, 'unset')} (now {now.get(name, 'unset')})" for name in different[:3])
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    return f"was made with {', '.join(told)}{more}" if different else ""


def _flat(settings: Mapping[str, Any], path: str = "") -> Settings:
    """Settings by dotted name."""
    out: Settings = {}
    for name, value in settings.items():
        out |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return out
