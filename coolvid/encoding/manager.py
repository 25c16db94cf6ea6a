"""FrameEncoderManager: order, pictures and counters of an encode. Each frame is a job.

Later frames refer to the decoded packet of a frame, so encoder and decoder cannot drift apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import Packet
from coolvid.codec.gop import CodingStep
from coolvid.codec.networks import STORED_FRAMES, NetworkStore
from coolvid.decoding.packet import decode_frame
from coolvid.errors import ConfigError
from coolvid.events import FrameDone, FrameStarted, Listener, Progress, ignore
from coolvid.picture.quality import psnr
from coolvid.picture.types import Frame, FrameType, PixelFormat
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.registry import make
from coolvid.settings.config import ENCODER_ONLY, EncodeConfig, FrameConfig
from coolvid.settings.presets import frame_configs

from .candidates import encode_frame, training_device
from .job import FrameJob, FrameResult, Heritage
from .objective import Objective
from .threads import use_threads


class FrameEncoderManager:
    """Encodes frames in any order in which references and predictors come first.

    total_training_time_sec: seconds spent in train(). iterations_counter: training iterations so far. best_loss: best
    validation loss of the last training, None while a frame is in progress. decoded: pictures that later frames may
    refer to, by display index.
    """

    def __init__(self, config: EncodeConfig, header: StreamHeader | None = None, listen: Listener = ignore) -> None:
        """header: of the stream; encode() and restore() need it, train() and quantize_model() do not.

        Raises ConfigError or PluginError for a device or an encoder-only plugin that cannot be used.
        """
        self.config = config
        self._header = header
        self.listen = listen
        self.total_training_time_sec = 0.0
        self.iterations_counter = 0
        self.best_loss: float | None = None
        self.decoded: dict[int, Frame] = {}
        self._heritages: dict[int, Heritage | None] = {}
        self._distortions: dict[int, float] = {}
        training_device(config.device)
        _check_plugins(config)

    @property
    def header(self) -> StreamHeader:
        """Raises ConfigError if the manager was made without one."""
        if self._header is None:
            raise ConfigError("this manager has no stream header; give one to encode frames, or call pack()")
        return self._header

    @property
    def lmbda(self) -> float:
        """Lambda of the encode; B frames of greater depth get a larger one (EncodeConfig.lmbda_at)."""
        return self.config.lmbda

    def job(self, step: CodingStep, frame: Frame) -> FrameJob:
        """The job of this step. Its references and its predictor must have been coded."""
        is_intra = step.frame_type is FrameType.I
        distortions = [self._distortions[i] for i in step.references]
        return FrameJob(
            step=step,
            frame=frame,
            references=tuple(self.decoded[i] for i in step.references),
            configs=self._configs(step, frame),
            header=self.header,
            seed=(self.config.seed * 1_000_003 + step.display_index) % 2**32,
            heritage=self._heritage(step),
            # RGB: the prior was trained for other formats
            uses_prior=self.config.inherit and is_intra and self.header.format.pixel_format is not PixelFormat.RGB,
            reference_distortion=sum(distortions) / max(1, len(distortions)),
            device=self.config.device,
        )

    def _configs(self, step: CodingStep, frame: Frame) -> tuple[FrameConfig, ...]:
        configs = frame_configs(self.config, step.frame_type, step.depth, (frame.height, frame.width))
        return tuple(replace(each, color=self.header.color) for each in configs)

    def _heritage(self, step: CodingStep) -> Heritage | None:
        """Heritage of the step's predictor, if a decoder still holds its networks at this step."""
        if not self.config.inherit or step.predictor is None:
            return None
        found = self._heritages[step.predictor]
        is_kept = found is not None and step.coding_index - found.coding_index <= STORED_FRAMES
        return found if is_kept else None

    def encode(self, step: CodingStep, frame: Frame, keep: Callable[[Packet], None] | None = None) -> Packet:
        """Code one frame. Its references and predictor must have been coded. Raises TrainingError.

        keep: called with the packet before FrameDone is sent, so that an announced frame is already stored.
        """
        job = self.job(step, frame)
        self.best_loss = None
        total = job.total_iterations
        self.listen(FrameStarted(step.coding_index, step.display_index, step.frame_type, step.references, total))
        start = time.perf_counter()
        with use_threads(self.config.threads):
            result = encode_frame(job, self.listen)
        self._note(step, result)
        if keep is not None:
            keep(result.packet)
        self.listen(_done(step, frame, result, time.perf_counter() - start))
        return result.packet

    def _note(self, step: CodingStep, result: FrameResult) -> None:
        """Store what later frames need of this one."""
        self.total_training_time_sec += result.training_time_s
        self.iterations_counter += result.n_iterations
        self.best_loss = result.best_validation
        self._remember(step, result.picture, result.heritage, result.distortion)

    def _remember(self, step: CodingStep, picture: Frame, heritage: Heritage | None, distortion: float) -> None:
        self.decoded[step.display_index] = picture
        self._heritages[step.display_index] = heritage
        self._distortions[step.display_index] = distortion

    def restore(self, step: CodingStep, frame: Frame, packet: Packet) -> None:
        """Restore this step and frame from the packet of an earlier run. Raises StreamError."""
        with use_threads(self.config.threads):
            self._restore(step, frame, packet)

    def _restore(self, step: CodingStep, frame: Frame, packet: Packet) -> None:
        heritage = self._heritage(step)
        store = NetworkStore([] if heritage is None else [heritage.networks])
        references = [self.decoded[i] for i in packet.info.references]
        picture = decode_frame(packet.data, self.header, references, store)
        objective = Objective.of(self._configs(step, frame)[0], frame)
        if not packet.info.is_copy:
            heritage = Heritage(store.frames[0], objective.of_packet(picture, packet.data), step.coding_index)
        self._remember(step, picture, heritage, objective.of_picture(picture))

    def forget(self, later: Sequence[CodingStep]) -> None:
        """Drop everything that no later step refers to or inherits from."""
        pictures = {index for step in later for index in step.references}
        predictors = {step.predictor for step in later if step.predictor is not None}
        self.decoded = {index: picture for index, picture in self.decoded.items() if index in pictures}
        self._distortions = {index: value for index, value in self._distortions.items() if index in pictures}
        self._heritages = {index: value for index, value in self._heritages.items() if index in predictors}

    def progress(self, phase: str, iteration: int, loss: float, psnr_db: float, rate_bpp: float) -> None:
        """For train() with this manager: every validation becomes an event of frame 0."""
        self.listen(Progress(0, phase, self.iterations_counter, 0, loss, psnr_db, rate_bpp))


def _check_plugins(config: EncodeConfig) -> None:
    """Make each plugin that the stream does not name once. Raises PluginError, ConfigError."""
    for name, kind in ENCODER_ONLY.items():
        choice: PluginChoice | None = getattr(config, name)
        if choice is not None:
            make(kind, choice.name, dict(choice.options))


def _done(step: CodingStep, frame: Frame, result: FrameResult, duration_s: float) -> FrameDone:
    return FrameDone(
        coding_index=step.coding_index,
        display_index=step.display_index,
        frame_type=step.frame_type,
        references=result.packet.info.references,
        n_bytes=len(result.packet.data),
        bits_by_part=result.packet.info.bits_by_part,
        psnr_db=psnr(result.picture, frame),
        float_psnr_db=result.float_psnr_db,
        loss=result.loss,
        iterations=result.n_iterations,
        duration_s=duration_s,
    )
