"""FrameEncoderManager: one frame after another, train -> quantize -> pack -> decode -> keep as reference.

The reference that later frames see is what decode_frame made of the packed bytes, so encoder and decoder cannot
drift apart; and the networks that they may inherit are those which the decoder keeps. What one frame needs is a
picklable FrameJob; the manager only keeps order, counts and pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from coolvid import kernels
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import Packet, latent_payloads, write_packet
from coolvid.codec.coded_frame import CodedFrame, CodedModule
from coolvid.codec.gop import CodingStep
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.decoding.contexts import ContextModel
from coolvid.decoding.packet import decode_frame, tensors_of
from coolvid.errors import ConfigError
from coolvid.events import FrameDone, FrameStarted, Listener, Progress, ignore
from coolvid.picture.quality import mse, psnr
from coolvid.picture.types import Frame, FrameType, PixelFormat
from coolvid.settings.config import EncodeConfig, FrameConfig, frame_architecture
from coolvid.settings.presets import frame_configs

from .model.frame_encoder import FrameEncoder
from .model.translation import global_translation
from .quantization import code_frame, quantize_model, rdo_latents, warm_start
from .training.schedule import train_frame

# How much worse than expected a frame that inherits has to be for being tried afresh.
SECOND_THOUGHT = 1.25

# Frames up to this depth, P and the first B, need a residue; deeper ones are close to their references.
RESIDUE_DEPTH = 2

# A copy that is as good as its references, up to this factor of their mean squared error, is not improved by training.
COPY_TOLERANCE = 1.02


def use_threads(count: int) -> None:
    """Train with `count` threads, 0 for all cores. Compiled kernels share them out, and their results do not depend on
    it; torch, which then has only small things to do, gets one. Without kernels torch gets them all."""
    kernels.set_threads(count)
    torch.set_num_threads(1 if kernels.compiled is not None else kernels.threads())


def training_device(name: str) -> torch.device:
    """The device to train on. Raises ConfigError for one that PyTorch does not know or does not find here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"cannot train on device '{name}': {str(error).splitlines()[0]}; choose cpu") from error
    return device


@dataclass(frozen=True)
class FrameJob:
    """Everything one frame's encoder needs. configuration: index into the stream header's table. predictor: networks
    that the frame may inherit. expected_loss: what frames like it came to. reference_mse: mean squared error of the
    references, [0, 1] samples."""

    step: CodingStep
    frame: Frame
    references: tuple[Frame, ...]
    config: FrameConfig
    configuration: int
    header: StreamHeader
    seed: int
    predictor: FrameNetworks | None = None
    expected_loss: float = math.inf
    reference_mse: float = 0.0

    def pictures(self, references: Sequence[int]) -> list[Frame]:
        """Those of some of the step's references."""
        known = dict(zip(self.step.references, self.references, strict=True))
        return [known[i] for i in references]

    @property
    def inherits(self) -> bool:
        """Whether the predictor is an earlier frame, not the prior."""
        return self.predictor is not None and self.predictor.display_index != PRIOR

    @property
    def total_iterations(self) -> int:
        """Training iterations if nothing stops early and no second attempt is needed."""
        return self.config.training.total_iterations(is_fresh=not self.inherits)


@dataclass(frozen=True)
class CodedPicture:
    """A frame's packet, the picture that its bytes decode to, its networks (None: a copy), the quality of the float
    model, the real loss, MSE + lmbda * bits per pixel, and the coded latents of each branch."""

    packet: Packet
    picture: Frame
    networks: FrameNetworks | None
    float_psnr_db: float
    loss: float
    payloads: Mapping[str, bytes]


class FrameEncoderManager:
    """Drives per-frame encoders in coding order.

    total_training_time_sec: seconds spent in train(). iterations_counter: training iterations so far.
    best_loss: best validation loss of the frame in work (MSE + lmbda * bpp), None before the first validation.
    decoded: pictures that later frames may refer to, by display index. networks: those that later frames may inherit.
    """

    def __init__(self, config: EncodeConfig, header: StreamHeader, listen: Listener = ignore) -> None:
        self.config = config
        self.header = header
        self.listen = listen
        self.total_training_time_sec = 0.0
        self.iterations_counter = 0
        self.best_loss: float | None = None
        self.decoded: dict[int, Frame] = {}
        self.networks = NetworkStore()
        self._depths: dict[int, int] = {}
        self._losses: dict[int, float] = {}
        self._errors: dict[int, float] = {}
        use_threads(config.threads)
        self.device = training_device(config.device)
        self._display_index = 0
        self._frame_start = 0
        self._total = 0

    def jobs(self, step: CodingStep, frame: Frame) -> tuple[FrameJob, ...]:
        """What encode() would run for this step: a job for each operating point that is tried."""
        size = frame.height, frame.width
        configs = frame_configs(self.config, step.frame_type, step.depth, size)
        return tuple(self._job(step, frame, config) for config in configs)

    def _job(self, step: CodingStep, frame: Frame, config: FrameConfig) -> FrameJob:
        configuration = self.header.configurations.index(frame_architecture(config))
        return FrameJob(
            step=step,
            frame=frame,
            references=tuple(self.decoded[i] for i in step.references),
            config=config,
            configuration=configuration,
            header=self.header,
            seed=(self.config.seed * 1_000_003 + step.display_index) % 2**32,
            predictor=self._predictor(configuration, step.depth),
            expected_loss=self._expected_loss(step),
            reference_mse=sum(self._errors.get(i, 0.0) for i in step.references) / max(1, len(step.references)),
        )

    def _expected_loss(self, step: CodingStep) -> float:
        """The least loss of the frames of this depth whose networks are still kept, or without one of those of this
        type; infinite without one."""
        known = [each for each in self.networks.frames if each.display_index in self._losses]
        alike = [each for each in known if self._depths[each.display_index] == step.depth]
        alike = alike or [each for each in known if each.architecture.frame_type is step.frame_type]
        return min((self._losses[each.display_index] for each in alike), default=math.inf)

    def _predictor(self, configuration: int, depth: int) -> FrameNetworks | None:
        """The prior for an I frame, unless it is RGB, for which it was not trained; else the frame coded last that
        has the same architecture, of the same depth if any, or at least has motion; None where there is none."""
        architecture = self.header.configurations[configuration]
        if not self.config.inherit:
            return None
        if architecture.frame_type is FrameType.I:
            is_rgb = self.header.format.pixel_format is PixelFormat.RGB
            return None if is_rgb else FrameNetworks.prior(architecture)
        moving = [each for each in self.networks.frames if each.architecture.motion is not None]
        fitting = [each for each in moving if each.architecture == architecture]
        alike = [each for each in fitting if self._depths[each.display_index] == depth]
        return next(iter(alike or fitting or moving), None)

    def encode(self, step: CodingStep, frame: Frame, keep: Callable[[Packet], None] | None = None) -> Packet:
        """Code one frame, whose references must have been coded before. Raises TrainingError.

        keep: gets the packet before FrameDone is told, so that a frame that was told is safe.
        """
        jobs = self.jobs(step, frame)
        self._display_index, self._frame_start = step.display_index, self.iterations_counter
        self._total, self.best_loss = sum(job.total_iterations for job in jobs), None
        self.listen(FrameStarted(step.coding_index, step.display_index, step.frame_type, step.references, self._total))
        start = time.perf_counter()
        coded = encode_frame(jobs, self)
        self._note(step, coded.picture, frame, coded.loss)
        if coded.networks is not None:
            self.networks.add(coded.networks)
        if keep is not None:
            keep(coded.packet)
        self.listen(self._done(step, frame, coded, time.perf_counter() - start))
        return coded.packet

    def restore(self, step: CodingStep, frame: Frame, packet: Packet) -> None:
        """Take over what an earlier run made of this step and frame."""
        references = [self.decoded[i] for i in packet.info.references]
        picture = decode_frame(packet.data, self.header, references, self.networks)
        lmbda = self.config.lmbda_at(step.frame_type, step.depth)
        self._note(step, picture, frame, real_loss(picture, frame, packet.data, lmbda))

    def _note(self, step: CodingStep, picture: Frame, frame: Frame, loss: float) -> None:
        """Remember what later frames need to know of this one."""
        self.decoded[step.display_index] = picture
        self._depths[step.display_index] = step.depth
        self._losses[step.display_index] = loss
        self._errors[step.display_index] = mse(picture, frame)

    def forget(self, later: Sequence[CodingStep]) -> None:
        """Drop pictures that no later step refers to."""
        needed = {index for step in later for index in step.references}
        self.decoded = {index: picture for index, picture in self.decoded.items() if index in needed}

    def progress(self, phase: str, iteration: int, loss: float, psnr_db: float, rate_bpp: float) -> None:
        """Called by training at every validation; iteration counts inside the phase."""
        done = self.iterations_counter - self._frame_start
        self.listen(Progress(self._display_index, phase, done, self._total, loss, psnr_db, rate_bpp))

    def _done(self, step: CodingStep, frame: Frame, coded: CodedPicture, duration_s: float) -> FrameDone:
        return FrameDone(
            coding_index=step.coding_index,
            display_index=step.display_index,
            frame_type=step.frame_type,
            references=coded.packet.info.references,
            n_bytes=len(coded.packet.data),
            bits_by_part=coded.packet.info.bits_by_part,
            psnr_db=psnr(coded.picture, frame),
            float_psnr_db=coded.float_psnr_db,
            loss=coded.loss,
            iterations=self.iterations_counter - self._frame_start,
            duration_s=duration_s,
        )


def encode_frame(jobs: Sequence[FrameJob], manager: FrameEncoderManager) -> CodedPicture:
    """The best picture of a frame, by its real loss: what one of the jobs made, each with another operating point, or a
    copy of references; a copy that is as good as they are ends the search.

    A frame that inherits and comes out much worse than frames like it, or than its references where it is a copy, is
    tried afresh: networks that learned to do nothing are a trap for a frame where something happens. One that starts
    afresh and finds no use for a residue, though it is far from its references, is tried with other seeds."""
    first = jobs[0]
    copies = sorted(copies_of(first), key=lambda each: each.loss)[:1]
    if copies and mse(copies[0].picture, first.frame) <= COPY_TOLERANCE * first.reference_mse:
        return copies[0]
    best = _best(*copies, *(attempt(job, manager) for job in jobs))
    if first.inherits and _disappoints(best, first):
        best = _best(best, *(attempt(replace(job, predictor=None), manager) for job in jobs))
    elif not first.inherits and _has_no_residue(best, first):
        best = _best(best, *(attempt(_reseeded(job), manager) for job in jobs))
    return best


def _has_no_residue(coded: CodedPicture, job: FrameJob) -> bool:
    """Whether a frame that should have a residue was coded with motion alone; a copy was not."""
    info = coded.packet.info
    is_far = job.step.frame_type is not FrameType.I and job.step.depth <= RESIDUE_DEPTH
    return is_far and not info.is_copy and not info.bits_by_part["residue.latents"]


def _reseeded(job: FrameJob) -> FrameJob:
    """The job with seeds that none of its candidates had."""
    candidates = max((each.candidates for each in job.config.training.warmup), default=1)
    return replace(job, seed=(job.seed + candidates) % 2**32)


def _disappoints(best: CodedPicture, job: FrameJob) -> bool:
    """Whether more can be expected of a frame."""
    if best.packet.info.is_copy and mse(best.picture, job.frame) > SECOND_THOUGHT * job.reference_mse:
        return True
    return best.loss > SECOND_THOUGHT * job.expected_loss


def _best(*made: CodedPicture) -> CodedPicture:
    return min(made, key=lambda each: each.loss)


def copies_of(job: FrameJob) -> list[CodedPicture]:
    """The P or B frames that are the mean of the references, or one of them, shifted as a whole where that pays; none
    for an I frame."""
    if not job.references:
        return []
    own = job.step.references
    shifts = {i: global_translation(job.frame, picture) for i, picture in zip(own, job.references, strict=True)}
    return [_copy(job, which, shifts) for which in dict.fromkeys((own, *((i,) * len(own) for i in own)))]


def _copy(job: FrameJob, references: tuple[int, ...], shifts: Mapping[int, tuple[int, int]]) -> CodedPicture:
    """The mean of these references, of which some may be the same, each moved by its shift (dy, dx)."""
    coded = CodedFrame(
        display_index=job.step.display_index,
        architecture=job.header.configurations[job.configuration],
        references=references,
        global_translation=tuple(shifts[i] for i in references),
        output_range=None,
        coolchics={},
    )
    made = _packed(job, coded, 0.0)
    return replace(made, float_psnr_db=psnr(made.picture, job.frame))


def attempt(job: FrameJob, manager: FrameEncoderManager) -> CodedPicture:
    """The life of one frame: train, quantise, pack, and decode the packed bytes; latents are improved where that lowers
    the loss of the packet."""

    def candidate(seed: int) -> FrameEncoder:
        encoder = FrameEncoder(job.config, job.frame, job.references, seed=job.seed + seed)
        return (encoder if job.predictor is None else warm_start(encoder, job.predictor)).to(manager.device)

    frame_encoder = train_frame(candidate, job.frame, manager, job.config, is_trained=job.inherits)
    frame_encoder = quantize_model(frame_encoder.cpu(), job.frame, manager, job.predictor)
    before = _coded(job, frame_encoder)
    if not rdo_latents(frame_encoder, job.frame, job.config.training.latent_rdo_rounds):
        return pack_frame(job, *before)
    improved = pack_frame(job, *_coded(job, frame_encoder))
    return improved if improved.loss < _packed(job, *before).loss else _best(improved, pack_frame(job, *before))


def _coded(job: FrameJob, frame_encoder: FrameEncoder) -> tuple[CodedFrame, float]:
    """The quantised frame as integers, and the PSNR of its float model."""
    predictor = job.predictor.display_index if job.predictor is not None else None
    coded = code_frame(frame_encoder, job.step.display_index, job.step.references, predictor)
    return coded, psnr(frame_encoder.picture(), job.frame)


def pack_frame(job: FrameJob, coded: CodedFrame, float_psnr_db: float) -> CodedPicture:
    """The packet of a frame; it names its predictor, and a branch takes its activation scales, where that pays."""
    best = _packed(job, coded, float_psnr_db)
    if coded.predictor is None or job.predictor is None:
        return best
    for branch in coded.coolchics:
        trial = _with_scales(coded, branch, job.predictor)
        made = _packed(job, trial, float_psnr_db)
        if made.loss < best.loss:
            best, coded = made, trial
    unpredicted = _packed(job, replace(coded, predictor=None), float_psnr_db, best.payloads)
    return min(best, unpredicted, key=lambda each: each.loss)


def _packed(
    job: FrameJob, coded: CodedFrame, float_psnr_db: float, payloads: Mapping[str, bytes] | None = None
) -> CodedPicture:
    """The frame's packet, decoded again. payloads: latent_payloads(), where they are known."""
    kept = [job.predictor] if job.predictor is not None and job.inherits else []
    models = context_models(coded, job.frame.height, job.frame.width)
    if payloads is None:
        payloads = latent_payloads(coded, models)
    packet = write_packet(coded, job.configuration, models, tensors_of, NetworkStore(kept), payloads)
    store = NetworkStore(kept)
    picture = decode_frame(packet.data, job.header, job.pictures(coded.references), store)
    loss = real_loss(picture, job.frame, packet.data, job.config.lmbda)
    networks = None if coded.is_copy else store.frames[0]
    return CodedPicture(packet, picture, networks, float_psnr_db, loss, payloads)


def real_loss(picture: Frame, frame: Frame, data: bytes, lmbda: float) -> float:
    """MSE + lmbda * bits per pixel of a decoded picture and its packet."""
    return mse(picture, frame) + lmbda * 8 * len(data) / (frame.height * frame.width)


def _with_scales(coded: CodedFrame, branch: str, predictor: FrameNetworks) -> CodedFrame:
    """The frame with one branch's activation scales taken from the predictor."""
    own, known = coded.coolchics[branch], predictor.modules.get(branch, {})
    modules = {
        name: replace(module, scales=known[name].scales) if _as_many_scales(module, known.get(name)) else module
        for name, module in own.modules.items()
    }
    return replace(coded, coolchics={**coded.coolchics, branch: replace(own, modules=modules)})


def _as_many_scales(module: CodedModule, other: CodedModule | None) -> bool:
    return other is not None and len(other.scales) == len(module.scales)


def context_models(coded: CodedFrame, height: int, width: int) -> dict[str, ContextModel]:
    """The integer context model of each branch, for entropy coding."""
    return {
        name: ContextModel(branch.architecture, branch.modules, height, width)
        for name, branch in coded.coolchics.items()
    }
