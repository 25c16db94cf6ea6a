"""From packets to Frames: integers and numpy only, equal on every machine. The encoder's references come from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Condition, Lock, Thread
from time import perf_counter
from typing import Any

from coolvid import kernels
from coolvid.bitstream.packet import PacketInfo, read_packet
from coolvid.bitstream.stream import StreamReader
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.events import FrameDecoded, Listener, ignore
from coolvid.picture.types import Frame

from . import PreparedFrame, finished_frame, prepared_frame
from .packet import read_frame, settings_checked, tensors_of


def decode_stream(
    reader: StreamReader, first: int = 0, last: int | None = None, threads: int = 0, listen: Listener = ignore
) -> Iterator[Frame]:
    """Frames first..last (display indices, inclusive; None: to the end) in display order.

    Decodes only what these need, and keeps a picture only until nobody needs it any more. threads: frames decoded at
    the same time, 0 for as many as there are cores; where there are fewer frames, threads share the rows of each.
    Pictures, errors and the order of events never depend on it, only how many pictures wait in memory (at most
    AHEAD_PER_THREAD a thread more, PREPARED_PER_THREAD of them unfinished). Raises StreamError.
    """
    packets = _by_index(reader)
    wanted = _wanted(packets, first, last)
    steps = _steps(packets, wanted)
    uses = _uses(packets, steps, wanted)
    decoded: dict[int, Frame] = {}
    shown = 0
    with _Workers(reader, packets, steps, decoded, threads or kernels.threads()) as workers:
        for index in steps:
            info = packets[index][1]
            listen(FrameDecoded(index, info.frame_type, workers.finish(index)))
            _release(decoded, uses, info.references)
            while shown < len(wanted) and wanted[shown] in decoded:
                yield decoded[wanted[shown]]
                _release(decoded, uses, (wanted[shown],))
                shown += 1


Packets = Mapping[int, tuple[int, PacketInfo]]
AHEAD_PER_THREAD = 8
PREPARED_PER_THREAD = 3


class _Workers:
    """Decodes steps into `decoded`, one after the other as finish() asks for them; with several threads also those that
    follow, up to a limit. Threads beyond the number of steps help with the rows of each.

    A step is two jobs: to prepare it, which needs no pictures, and to finish it when its references are there. A free
    thread prefers to finish, because others wait for that, and takes steps in coding order.
    """

    def __init__(
        self, reader: StreamReader, packets: Packets, steps: Sequence[int], decoded: dict[int, Frame], threads: int
    ) -> None:
        self._reader, self._packets, self._steps, self._decoded = reader, packets, steps, decoded
        self._predictors = _Predictors(reader, packets, steps)
        side_by_side = max(1, min(threads, len(steps)))
        self._threads_per_frame = threads // side_by_side
        self._window, self._most_prepared = AHEAD_PER_THREAD * side_by_side, PREPARED_PER_THREAD * side_by_side
        self._position = 0  # of the step that finish() is asked for next
        self._n_started = 0  # steps whose preparation has begun
        self._prepared: dict[int, tuple[PreparedFrame, float]] = {}
        self._done: dict[int, tuple[Frame, float] | Exception] = {}
        self._unfinished = 0  # steps between the start of their preparation and their end
        self._changed = Condition()
        self._is_open = True
        names = [f"coolvid-decode_{i}" for i in range(side_by_side if side_by_side > 1 else 0)]
        self._threads = [Thread(target=self._work, name=name, daemon=True) for name in names]

    def __enter__(self) -> _Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def finish(self, index: int) -> float:
        """Put the frame of the next step into `decoded`; the seconds that it took. Raises what decode_frame() does."""
        if not self._threads:
            references = [self._decoded[each] for each in self._packets[index][1].references]
            self._decoded[index], seconds = self._finished(self._prepare(index), references)
            return seconds
        with self._changed:
            self._changed.wait_for(lambda: index in self._done)
            done = self._done.pop(index)
            if isinstance(done, Exception):
                raise done
            self._decoded[index] = done[0]
            self._position += 1
            self._changed.notify_all()
        return done[1]

    def _prepare(self, index: int) -> tuple[PreparedFrame, float]:
        start = perf_counter()
        header = self._reader.header
        with settings_checked():
            coded = read_frame(self._reader.read(self._packets[index][0]), header, self._predictors.of(index))
            prepared = prepared_frame(coded, header.format, self._threads_per_frame)
        return prepared, perf_counter() - start

    def _finished(self, prepared: tuple[PreparedFrame, float], references: Sequence[Frame]) -> tuple[Frame, float]:
        start = perf_counter()
        with settings_checked():
            frame = finished_frame(prepared[0], references, self._reader.header.format)
        return frame, prepared[1] + perf_counter() - start

    def _work(self) -> None:
        """The life of a thread."""
        while (job := self._next_job()) is not None:
            index, prepared, references = job
            try:
                if prepared is None:
                    self._note(self._prepared, index, self._prepare(index))
                else:
                    self._note(self._done, index, self._finished(prepared, references))
            except Exception as error:  # whatever it is, finish() raises it
                self._note(self._done, index, error)

    def _note(self, where: dict[int, Any], index: int, what: object) -> None:
        with self._changed:
            where[index] = what
            self._unfinished -= where is self._done
            self._changed.notify_all()

    def _next_job(self) -> tuple[int, tuple[PreparedFrame, float] | None, list[Frame]] | None:
        """A step to finish, with its preparation and its references, or to prepare (None); waits for one.

        None when nothing is wanted any more."""
        with self._changed:
            while self._is_open:
                end = min(self._position + self._window, len(self._steps))
                for index in self._steps[self._position : end]:
                    references = self._references(index) if index in self._prepared else None
                    if references is not None:
                        return index, self._prepared.pop(index), references
                if self._n_started < end and self._unfinished < self._most_prepared:
                    self._n_started, self._unfinished = self._n_started + 1, self._unfinished + 1
                    return self._steps[self._n_started - 1], None, []
                self._changed.wait()
        return None

    def _references(self, index: int) -> list[Frame] | None:
        """The references of a step, if they are all decoded."""
        out = []
        for each in self._packets[index][1].references:
            done = self._done.get(each)
            frame = done[0] if isinstance(done, tuple) else self._decoded.get(each)
            if frame is None:
                return None
            out.append(frame)
        return out


class _Predictors:
    """Networks that packets inherit from. A predictor that is not among the steps is parsed, but not decoded."""

    def __init__(self, reader: StreamReader, packets: Packets, steps: Sequence[int]) -> None:
        self._reader, self._packets = reader, packets
        self._uses = self._count(steps)
        self._known: dict[int, FrameNetworks] = {}
        self._lock = Lock()

    def of(self, index: int) -> NetworkStore:
        """What the packet of this frame, which is one of the steps, may inherit; to be asked for once.

        Raises what read_packet() does for a packet that it depends on.
        """
        if self._predictor(index) is None:
            return NetworkStore()
        with self._lock:
            for each in reversed(self._unknown(index)):
                self._known[each] = self._parse(each)
            return self._take(index)

    def _predictor(self, index: int) -> int | None:
        """The frame that a packet's networks are predicted from, if it is one of the stream's."""
        predictor = self._packets[index][1].predictor
        return None if predictor == PRIOR else predictor

    def _count(self, steps: Sequence[int]) -> dict[int, int]:
        """How often each frame is taken as predictor: by steps, and by frames that are themselves predictors."""
        uses: dict[int, int] = {}
        for step in steps:
            predictor = self._predictor(step)
            while predictor is not None:
                uses[predictor] = uses.get(predictor, 0) + 1
                predictor = self._predictor(predictor) if uses[predictor] == 1 else None
        return uses

    def _unknown(self, index: int) -> list[int]:
        """The predictor of a frame, the predictor of that, and so on, up to one that is known or has none."""
        chain: list[int] = []
        predictor = self._predictor(index)
        while predictor is not None and predictor not in self._known:
            chain.append(predictor)
            predictor = self._predictor(predictor)
        return chain

    def _parse(self, index: int) -> FrameNetworks:
        data = self._reader.read(self._packets[index][0])
        with settings_checked():
            content = read_packet(data, self._reader.header, tensors_of, self._take(index))
        return FrameNetworks(index, content.architecture, content.modules)

    def _take(self, index: int) -> NetworkStore:
        """The predictor of a frame, known by now; dropped when nobody else will ask for it."""
        predictor = self._predictor(index)
        if predictor is None:
            return NetworkStore()
        found = self._known[predictor]
        self._uses[predictor] -= 1
        if not self._uses[predictor]:
            del self._known[predictor]
        return NetworkStore([found] if found.modules else [])


def steps_for(reader: StreamReader, first: int = 0, last: int | None = None) -> list[int]:
    """Display indices, in coding order, of the frames that decode_stream() decodes to show first..last."""
    packets = _by_index(reader)
    return _steps(packets, _wanted(packets, first, last))


def _by_index(reader: StreamReader) -> Packets:
    """(position in the stream, what it says) of every packet, by display index."""
    return {info.display_index: (position, info) for position, info in enumerate(reader.packets)}


def _wanted(packets: Packets, first: int, last: int | None) -> list[int]:
    return [index for index in sorted(packets) if first <= index and (last is None or index <= last)]


def _steps(packets: Packets, wanted: Sequence[int]) -> list[int]:
    """Display indices of the wanted frames and of all they refer to, in coding order."""
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting.extend(packets[index][1].references)
    return sorted(needed, key=lambda index: packets[index][0])


def _uses(packets: Packets, steps: Sequence[int], wanted: Sequence[int]) -> dict[int, int]:
    """How often each picture is asked for: once to be shown if wanted, and once per reference to it."""
    uses = dict.fromkeys(steps, 0) | dict.fromkeys(wanted, 1)
    for index in steps:
        for reference in packets[index][1].references:
            uses[reference] += 1
    return uses


def _release(decoded: dict[int, Frame], uses: dict[int, int], indices: Sequence[int]) -> None:
    for index in indices:
        uses[index] -= 1
        if uses[index] == 0:
            del decoded[index]
