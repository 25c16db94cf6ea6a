"""From a stream to Frames in display order: which frames are decoded, when, and by which thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Event, Lock
from time import perf_counter
from typing import Any, NamedTuple

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

    Decodes only the frames that these depend on, and drops each picture after its last use. threads: frames prepared at
    the same time, 0 for the number of cores; where there are fewer frames, threads share the rows of each. Pictures,
    errors and the order of events never depend on it; memory does: up to AHEAD_PER_THREAD steps a thread wait, decoded
    or under way. Raises StreamError at the first damaged frame in coding order.
    """
    packets = _by_index(reader)
    wanted = _wanted(packets, first, last)
    steps = _steps(packets, wanted)
    uses = _uses(packets, steps, wanted)
    decoded: dict[int, Frame] = {}
    shown = 0
    with _Pipeline(reader, packets, steps, decoded, threads or kernels.threads()) as pipeline:
        for index in steps:
            info = packets[index][1]
            listen(FrameDecoded(index, info.frame_type, pipeline.decode(index)))
            _release(decoded, uses, info.references)
            while shown < len(wanted) and wanted[shown] in decoded:
                yield decoded[wanted[shown]]
                _release(decoded, uses, (wanted[shown],))
                shown += 1


Packets = Mapping[int, tuple[int, PacketInfo]]
AHEAD_PER_THREAD = 4
_Prepared = tuple[PreparedFrame, float]
_Decoded = tuple[Frame, float]


class _Step(NamedTuple):
    """A frame that is not finished: its references, what is prepared of it, and its picture, each with seconds."""

    references: Sequence[Frame | Future[_Decoded]]
    prepared: Future[_Prepared]
    picture: Future[_Decoded]

    def is_ready(self) -> bool:
        """Whether it can be finished at once."""
        return all(isinstance(each, Frame) or each.done() for each in (self.prepared, *self.references))


class _Pipeline:
    """Decodes steps into `decoded`, in coding order as decode() is called; with several threads also the next ones.

    A step has two halves: it is prepared, which needs no pictures, and finished once its references are. The threads
    of a pool prepare steps in coding order; a thread that has prepared one finishes all that are ready before the next.
    """

    def __init__(
        self, reader: StreamReader, packets: Packets, steps: Sequence[int], decoded: dict[int, Frame], threads: int
    ) -> None:
        self._reader, self._packets, self._decoded = reader, packets, decoded
        self._predictors = _Predictors(reader, packets, steps)
        self._ahead = deque(steps)
        self._pictures: dict[int, Future[_Decoded]] = {}
        self._unfinished: dict[int, _Step] = {}
        self._lock = Lock()
        side_by_side = max(1, min(threads, len(steps)))
        self._threads_per_frame = threads // side_by_side
        self._pool = _pool(side_by_side)
        self._window = 1 + AHEAD_PER_THREAD * side_by_side if isinstance(self._pool, ThreadPoolExecutor) else 1

    def __enter__(self) -> _Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._unfinished.clear()
        self._pool.shutdown(cancel_futures=True)

    def decode(self, index: int) -> float:
        """Put the frame of the next step into `decoded`; returns its seconds of work. Raises its StreamError."""
        while self._ahead and len(self._pictures) < self._window:
            self._submit(self._ahead.popleft())
        self._decoded[index], seconds = self._pictures[index].result()
        del self._pictures[index]
        return seconds

    def _submit(self, index: int) -> None:
        references = [self._pictures.get(each) or self._decoded[each] for each in self._packets[index][1].references]
        prepared = self._pool.submit(self._prepare, index)
        step = _Step(references, prepared, Future())
        self._pictures[index] = step.picture
        with self._lock:
            self._unfinished[index] = step
        prepared.add_done_callback(self._finish_ready)

    def _finish_ready(self, _: object) -> None:
        while (step := self._take_ready()) is not None:
            _run(step.picture, self._finish, step)

    def _take_ready(self) -> _Step | None:
        """The first step in coding order that can be finished. Where there are more, an idle thread looks, too."""
        with self._lock:
            ready = [index for index, step in self._unfinished.items() if step.is_ready()]
            if len(ready) > 1:
                self._pool.submit(self._finish_ready, None)
            return self._unfinished.pop(ready[0]) if ready else None

    def _prepare(self, index: int) -> _Prepared:
        start = perf_counter()
        header = self._reader.header
        with settings_checked():
            coded = read_frame(self._reader.read(self._packets[index][0]), header, self._predictors.of(index))
            prepared = prepared_frame(coded, header.format, self._threads_per_frame)
        return prepared, perf_counter() - start

    def _finish(self, step: _Step) -> _Decoded:
        start = perf_counter()
        prepared, seconds = step.prepared.result()
        references = [each if isinstance(each, Frame) else each.result()[0] for each in step.references]
        with settings_checked():
            picture = finished_frame(prepared, references, self._reader.header.format)
        return picture, seconds + perf_counter() - start


def _run(future: Future[Any], call: Callable[..., Any], *args: Any) -> None:
    """Call, and put what it returns or raises into a future."""
    try:
        future.set_result(call(*args))
    except Exception as error:
        future.set_exception(error)


class _CallingThread(Executor):
    """Runs each call in the thread that submits it."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        _run(future, call, *args)
        return future


def _pool(n_threads: int) -> Executor:
    """A pool whose threads all run: n_threads, or as many as can start; for one or none, the calling thread."""
    while n_threads > 1:
        pool, gate, n_started = ThreadPoolExecutor(n_threads, "coolvid-decode"), Event(), 0
        try:
            while n_started < n_threads:
                pool.submit(gate.wait)  # none is idle, so that each call starts a thread
                n_started += 1
            return pool
        except RuntimeError:  # can't start new thread
            n_threads = n_started
        finally:
            gate.set()
        pool.shutdown()
    return _CallingThread()


class _Predictors:
    """The networks that packets inherit from. A predictor that is not among the steps is parsed, but not decoded."""

    def __init__(self, reader: StreamReader, packets: Packets, steps: Sequence[int]) -> None:
        self._reader, self._packets = reader, packets
        self._uses = self._count(steps)
        self._known: dict[int, FrameNetworks] = {}
        self._lock = Lock()

    def of(self, index: int) -> NetworkStore:
        """The store for the packet of a step, to be called once per step.

        Raises the error of read_packet() for a packet that it depends on.
        """
        if self._predictor(index) is None:
            return NetworkStore()
        with self._lock:
            for each in reversed(self._unknown(index)):
                self._known[each] = self._parse(each)
            return self._take(index)

    def _predictor(self, index: int) -> int | None:
        """The frame of the stream that predicts a packet's networks, if any."""
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
        """The predictor of a frame, the predictor of that, and so on, until one is known or has none."""
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
        """The known predictor of a frame, dropped after its last use."""
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
    """(position in the stream, description) of every packet, by display index."""
    return {info.display_index: (position, info) for position, info in enumerate(reader.packets)}


def _wanted(packets: Packets, first: int, last: int | None) -> list[int]:
    return [index for index in sorted(packets) if first <= index and (last is None or index <= last)]


def _steps(packets: Packets, wanted: Sequence[int]) -> list[int]:
    """Display indices of the wanted frames and of all frames they depend on, in coding order."""
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting.extend(packets[index][1].references)
    return sorted(needed, key=lambda index: packets[index][0])


def _uses(packets: Packets, steps: Sequence[int], wanted: Sequence[int]) -> dict[int, int]:
    """The number of uses of each picture: one to be shown, if wanted, and one per reference to it."""
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
