"""Rate-distortion curves of coolvid and conventional encoders for one video; finished points are kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from coolvid import api
from coolvid.bitstream.stream import StreamReader
from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.events import Listener, PointDone, PointStarted, ignore
from coolvid.files import discard, part_of, read_text, write_text
from coolvid.media import Source, SourceSpec, open_source
from coolvid.picture.digest import picture_digest
from coolvid.picture.quality import bpp, sequence_quality
from coolvid.picture.types import ColorInfo, Frame, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.values import parse_json

from .curves import BdRate, Comparison, Point
from .peers import Peer, Placement, decode_peer, encode_peer
from .vmaf import find_ffmpeg, vmaf

MIN_POINTS = 4
SINGLE_POINT_SPAN_DB = 1.5
_DB_PER_CRF = 0.5
_GUESSES = 4
_FIRST_GUESS = 0.55


def compare(
    source: str | Path,
    out: str | Path,
    lmbdas: Sequence[float],
    peers: Sequence[Peer],
    config: EncodeConfig | None = None,
    *,
    source_spec: SourceSpec = SourceSpec(),
    with_vmaf: bool = False,
    force: bool = False,
    listen: Listener = ignore,
) -> Comparison:
    """Encode a video with coolvid at each lmbda, and with each peer at qualities that cover the same PSNRs.

    All figures are measured on decoded files. out/streams keeps the streams and their measurements. Points that are
    already there, made from the same frames and settings, are not made again unless force is set.
    config: for all coolvid points; n_frames, structure and lmbda work as in encode(). Peers place I frames as that
    structure does. source_spec: how to read it. Raises CoolvidError.
    """
    config = api.checked_config(config, source_spec, source=source, out=out)
    if not lmbdas:
        raise ConfigError("no lmbda given; give one or more, for example 1e-2,3e-3,1e-3")
    configs = [replace(config, lmbda=lmbda) for lmbda in dict.fromkeys(lmbdas)]
    if with_vmaf:
        find_ffmpeg()
    clip, placement = Clip(Path(source), config.n_frames, source_spec), Placement.of(config.structure)
    facts = clip.facts
    for peer in peers:
        peer.check(facts.format)
    bench = _Bench(clip, _streams_folder(Path(out)), with_vmaf, force, listen)
    own = [bench.point(_CoolvidJob(clip, each, listen)) for each in configs]
    curves = [_by_rate(own)]
    span = _span(own)
    for peer in dict.fromkeys(peers):
        point_at = partial(_peer_point, bench, clip, peer, placement)
        curves.append(_by_rate(cover(point_at, peer.encoder.crfs, span, max(MIN_POINTS, len(own)))))
    points = tuple(point for curve in curves for point in curve)
    rates = tuple(BdRate.of(curves[0], curve) for curve in curves[1:])
    return Comparison(clip.path.name, facts.format, facts.fps, facts.n_frames, points, rates)


def cover(
    point_at: Callable[[int], Point], crfs: Sequence[int], span_db: tuple[float, float], n_points: int
) -> list[Point]:
    """About n_points points whose PSNRs enclose span_db (low, high), as far as crfs (rising) allow.

    PSNR falls with the CRF. Both ends are searched for; points measured during the search are kept if they lie between.
    """
    known: dict[int, Point] = {}

    def psnr_at(crf: int) -> float:
        if crf not in known:
            known[crf] = point_at(crf)
        return known[crf].psnr_db

    low, high = span_db
    first = last_reaching(psnr_at, high, crfs)
    last = min(last_reaching(psnr_at, low, crfs) + 1, crfs[-1])
    missing = max(0, n_points - 1 - (last - first))  # a narrow or unreachable span still gets n_points
    first, last = max(first - (missing + 1) // 2, crfs[0]), min(last + (missing + 1) // 2, crfs[-1])
    step = (last - first) / (n_points - 1)
    for i in range(n_points):
        crf = round(first + i * step)
        if all(abs(crf - other) > step / 2 for other in known):
            psnr_at(crf)
    for end in (first, last):
        psnr_at(end)
    return [known[crf] for crf in sorted(known) if first <= crf <= last]


def last_reaching(psnr_at: Callable[[int], float], target_db: float, crfs: Sequence[int]) -> int:
    """The largest CRF whose PSNR is at least target_db, or the smallest CRF.

    The first few guesses use the typical slope of PSNR over CRF, then bisection takes over.
    """
    low, high = crfs[0], crfs[-1]
    guess = float(low + _FIRST_GUESS * (high - low))
    for attempt in range(len(crfs)):
        if low >= high:
            break
        crf = min(max(round(guess), low + 1), high)
        psnr_db = psnr_at(crf)
        low, high = (crf, high) if psnr_db >= target_db else (low, crf - 1)
        guess = crf + (psnr_db - target_db) / _DB_PER_CRF if attempt < _GUESSES else (low + high + 1) / 2
        guess = max(guess, crf + 1) if psnr_db >= target_db else guess
    return low


@dataclass(frozen=True)
class ClipFacts:
    """What all frames of a clip share, their number, and a digest of the frames and these facts."""

    format: VideoFormat
    fps: Fraction
    color: ColorInfo
    n_frames: int
    digest: str


@dataclass(frozen=True)
class Clip:
    """The frames to compare on: the first `limit` (0: all) of a file that can be read repeatedly."""

    path: Path
    limit: int
    spec: SourceSpec

    def open(self) -> Source:
        if str(self.path) == "-":
            raise InputError(
                "a comparison reads its source several times, which standard input does not allow; use a file"
            )
        return open_source(self.path, self.spec, self.limit)

    def frames(self) -> Iterator[Frame]:
        with self.open() as source:
            yield from islice(source, self.limit or None)

    @cached_property
    def facts(self) -> ClipFacts:
        """Computed by reading all frames once. Raises InputError when there are none."""
        state, n_frames = hashlib.sha256(), 0
        with self.open() as source:
            for frame in islice(source, self.limit or None):
                state.update(picture_digest(frame))
                n_frames += 1
            state.update(repr((source.format, source.fps, source.color)).encode())
            if not n_frames:
                raise InputError(f"{self.path} has no frames; give a source with at least 1")
            return ClipFacts(source.format, source.fps, source.color, n_frames, state.hexdigest())


class _Job(Protocol):
    """Makes the stream of one point."""

    codec: str
    setting: str
    suffix: str

    def settings(self) -> dict[str, Any]:
        """Everything that determines the bytes, except the frames."""

    def encode(self, path: Path) -> float | None:
        """Make the stream; the seconds taken, None if part of it already existed."""

    def decode(self, path: Path) -> Iterator[Frame]: ...


class _CoolvidJob:
    suffix = ".cvd"

    def __init__(self, clip: Clip, config: EncodeConfig, listen: Listener) -> None:
        self._clip, self._config, self._listen = clip, config, listen
        self.codec, self.setting = f"coolvid:{config.preset}", f"lmbda {config.lmbda:g}"

    def settings(self) -> dict[str, Any]:
        chosen = asdict(self._config)
        del chosen["threads"]  # time only
        return {"coolvid": version("coolvid"), **chosen}

    def encode(self, path: Path) -> float | None:
        resume = part_of(path).exists()
        clip = self._clip
        done = api.encode(clip.path, path, self._config, source_spec=clip.spec, resume=resume, listen=self._listen)
        return None if resume else done.duration_s

    def decode(self, path: Path) -> Iterator[Frame]:
        from coolvid.decoding.schedule import decode_stream

        with StreamReader(path) as reader:
            yield from decode_stream(reader, threads=self._config.threads)


class _PeerJob:
    def __init__(self, clip: Clip, peer: Peer, crf: int, placement: Placement) -> None:
        self._clip, self._peer, self._crf, self._placement = clip, peer, crf, placement
        self.codec, self.setting, self.suffix = str(peer), f"crf {crf}", peer.encoder.suffix

    def settings(self) -> dict[str, Any]:
        return dict(self._peer.settings(self._crf, self._placement))

    def encode(self, path: Path) -> float | None:
        facts = self._clip.facts
        done = encode_peer(self._clip.frames(), path, self._peer, self._crf, self._placement, facts.fps, facts.color)
        return done.duration_s

    def decode(self, path: Path) -> Iterator[Frame]:
        return decode_peer(path, self._clip.facts.format, self._clip.facts.fps)


def _peer_point(bench: _Bench, clip: Clip, peer: Peer, placement: Placement, crf: int) -> Point:
    return bench.point(_PeerJob(clip, peer, crf, placement))


class _Bench:
    """Makes points, or loads those of an earlier run."""

    def __init__(self, clip: Clip, folder: Path, with_vmaf: bool, force: bool, listen: Listener) -> None:
        self._clip, self._folder, self._with_vmaf, self._force, self._listen = clip, folder, with_vmaf, force, listen

    def point(self, job: _Job) -> Point:
        self._listen(PointStarted(job.codec, job.setting))
        path = self._folder / self._name(job)
        if self._force:
            discard(path)
            for old in (path, _record(path)):
                old.unlink(missing_ok=True)
        kept = self._kept(path)
        point = kept
        if kept is None or (self._with_vmaf and kept.vmaf is None):
            point = self._make(job, path, kept)
            write_text(_record(path), json.dumps(point.to_json(), indent=1, allow_nan=False) + "\n")
        assert point is not None
        self._listen(PointDone(point, point is not kept))
        return point

    def _make(self, job: _Job, path: Path, kept: Point | None) -> Point:
        duration_s, facts = kept.duration_s if kept else None, self._clip.facts
        if not path.exists():
            duration_s = job.encode(path)
        n_bytes = path.stat().st_size
        quality = sequence_quality(zip(self._clip.frames(), job.decode(path), strict=True))
        score = vmaf(self._clip.frames(), job.decode(path), facts.fps) if self._with_vmaf else None
        rate = bpp(n_bytes, facts.format, facts.n_frames)
        return Point(job.codec, job.setting, path.name, n_bytes, rate, quality, score, duration_s)

    def _name(self, job: _Job) -> str:
        """Codec and setting in readable form, then a fingerprint of frames and settings."""
        facts = json.dumps([self._clip.facts.digest, job.settings()], sort_keys=True, default=str)
        words = f"{job.codec}_{job.setting}".replace(":", "-").replace(" ", "")
        return f"{words}_{hashlib.sha256(facts.encode()).hexdigest()[:8]}{job.suffix}"

    def _kept(self, path: Path) -> Point | None:
        """The point from an earlier run, if it can be read."""
        try:
            return Point.from_json(parse_json(read_text(_record(path))))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _streams_folder(out: Path) -> Path:
    folder = out / "streams"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {folder}: {error.strerror or error}") from error
    return folder


def _by_rate(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda point: point.n_bytes)


def _span(points: Sequence[Point]) -> tuple[float, float]:
    """(lowest, highest) PSNR in dB, widened for a single point."""
    low, high = min(p.psnr_db for p in points), max(p.psnr_db for p in points)
    return (low, high) if len(points) > 1 else (low - SINGLE_POINT_SPAN_DB, high + SINGLE_POINT_SPAN_DB)
