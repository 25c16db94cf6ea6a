"""encode_frame(): the ways to code a frame, their costs, and the choice of the cheapest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from coolvid.codec.coded_frame import CodedFrame
from coolvid.codec.networks import FrameNetworks
from coolvid.errors import ConfigError
from coolvid.events import Progress
from coolvid.picture.quality import psnr
from coolvid.picture.types import FrameType
from coolvid.settings.config import FrameConfig, frame_architecture

from .job import FrameJob, FrameResult, Heritage
from .model.frame_encoder import FrameEncoder
from .model.translation import global_translation
from .objective import Objective
from .packing import Candidate, Packer, best
from .quantization import code_frame, quantize_for, rdo_latents, warm_start
from .threads import use_threads
from .training.schedule import train_frame

SECOND_THOUGHT = 1.25
"""A frame that inherits is also trained afresh if its loss exceeds its predictor's by this factor."""

RESIDUE_DEPTH = 2
"""Frames up to this depth, P and the first B, need a residue; deeper ones are close to their references."""

COPY_TOLERANCE = 1.02
"""If a copy's distortion is within this factor of its references' distortion, the frame is not trained."""

Reporter = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reporter that ignores progress."""


@use_threads()
def encode_frame(job: FrameJob, report: Reporter = silent) -> FrameResult:
    """The best of a frame's candidates: copies of its references, and one trained frame per operating point.

    The result depends on the job alone. report: called at every validation of the training, for example to send the
    progress to another process. Raises TrainingError, PluginError, ConfigError.
    """
    work = _Work(job, training_device(job.device), report)
    chosen = _choose(work)
    networks, heritage = chosen.networks, job.heritage
    if networks is not None:
        heritage = Heritage(networks, chosen.loss, job.step.coding_index)
    return FrameResult(
        packet=chosen.packet,
        picture=chosen.picture,
        heritage=heritage,
        loss=chosen.loss * work.objective.scale,
        distortion=work.objective.of_picture(chosen.picture),
        float_psnr_db=chosen.float_psnr_db,
        n_iterations=work.iterations_counter,
        training_time_s=work.total_training_time_sec,
        best_validation=work.best_loss,
    )


def training_device(name: str) -> torch.device:
    """The device to train on. Raises ConfigError unless one step of a tiny training gives a number there."""
    try:
        device = torch.device(name)
        values = torch.ones(2, device=device, requires_grad=True)
        (values @ values).backward()  # type: ignore[no-untyped-call]
        values.detach().cpu().numpy()
        torch.Generator(device)  # for noise
    except Exception as error:  # each kind of device has its own
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")[:100]
        raise ConfigError(f"cannot train on device '{name}': {reason}; choose cpu") from error
    return device


class _Work:
    """A job in progress: the objective, and the counters that training advances (see TrainingManager).

    objective: on the CPU, for quantization and packing.
    """

    def __init__(self, job: FrameJob, device: torch.device, report: Reporter) -> None:
        self.job, self.device = job, device
        self.objective = Objective.of(job.configs[0], job.frame)
        self.training_objective = (
            self.objective if device.type == "cpu" else Objective.of(job.configs[0], job.frame, device)
        )
        self.total_training_time_sec = 0.0
        self.iterations_counter = 0
        self.best_loss: float | None = None
        self._report = report

    def progress(self, phase: str, iteration: int, loss: float, psnr_db: float, rate_bpp: float) -> None:
        """Called by training at every validation; iteration counts within the phase."""
        done, total = self.iterations_counter, self.job.total_iterations
        self._report(Progress(self.job.step.display_index, phase, done, total, loss, psnr_db, rate_bpp))


def _choose(work: _Work) -> Candidate:
    """The cheapest candidate. A copy about as good as its references ends the search."""
    job = work.job
    copies = sorted(copies_of(job, work.objective), key=lambda each: each.loss)[:1]
    if copies and work.objective.of_picture(copies[0].picture) <= COPY_TOLERANCE * job.reference_distortion:
        return copies[0]
    first = [trained(work, Attempt.of(job, config)) for config in job.configs]
    again = [trained(work, attempt) for attempt in _second_attempts(work, best(*copies, *first))]
    return best(*copies, *first, *again)


@dataclass(frozen=True)
class Attempt:
    """A way to train a frame. predictor: networks to start from and to predict from. is_trained: they come from a
    similar frame, so there is no warm-up."""

    config: FrameConfig
    seed: int
    predictor: FrameNetworks | None
    is_trained: bool

    @classmethod
    def of(cls, job: FrameJob, config: FrameConfig) -> Attempt:
        """The attempt with the job's heritage, or with the prior."""
        if job.heritage is not None:
            return cls(config, job.seed, job.heritage.networks, True)
        return cls(config, job.seed, FrameNetworks.prior(frame_architecture(config)) if job.uses_prior else None, False)

    @property
    def afresh(self) -> Attempt:
        """Without a predictor."""
        return replace(self, predictor=None, is_trained=False)

    @property
    def reseeded(self) -> Attempt:
        """The attempt with seeds that none of its candidates had."""
        candidates = max((each.candidates for each in self.config.training.warmup), default=1)
        return replace(self, seed=(self.seed + candidates) % 2**32)


def _second_attempts(work: _Work, found: Candidate) -> list[Attempt]:
    """Attempts to make after `found`.

    If a frame inherits and ends much worse than its predictor (for a copy: than its references), train it afresh:
    networks that learned to do nothing are a poor start when something happens. If a frame that starts afresh is far
    from its references but uses no residue, try other seeds.
    """
    job = work.job
    attempts = [Attempt.of(job, config) for config in job.configs]
    if job.heritage is not None:
        return [each.afresh for each in attempts] if _disappoints(work, job.heritage, found) else []
    return [each.reseeded for each in attempts] if _has_no_residue(job, found) else []


def _disappoints(work: _Work, heritage: Heritage, found: Candidate) -> bool:
    """Whether a frame with this heritage should do better."""
    limit = SECOND_THOUGHT * work.job.reference_distortion
    if found.packet.info.is_copy and work.objective.of_picture(found.picture) > limit:
        return True
    return found.loss > SECOND_THOUGHT * heritage.loss


def _has_no_residue(job: FrameJob, found: Candidate) -> bool:
    """Whether a frame that should have a residue was coded with motion alone. False for a copy."""
    info = found.packet.info
    is_far = job.step.frame_type is not FrameType.I and job.step.depth <= RESIDUE_DEPTH
    return is_far and not info.is_copy and not info.bits_by_part["residue.latents"]


def copies_of(job: FrameJob, objective: Objective) -> list[Candidate]:
    """P or B frames that equal one reference or the mean of the references, with global translation if it pays. Empty
    for an I frame."""
    if not job.references:
        return []
    own = job.step.references
    shifts = {i: global_translation(job.frame, picture) for i, picture in zip(own, job.references, strict=True)}
    which = dict.fromkeys((own, *((i,) * len(own) for i in own)))
    return [_copy(job, objective, references, shifts) for references in which]


def _copy(
    job: FrameJob, objective: Objective, references: tuple[int, ...], shifts: Mapping[int, tuple[int, int]]
) -> Candidate:
    """The mean of these references, possibly repeated, each shifted by (dy, dx)."""
    coded = CodedFrame(
        display_index=job.step.display_index,
        architecture=frame_architecture(job.configs[0]),
        references=references,
        global_translation=tuple(shifts[i] for i in references),
        output_range=None,
        coolchics={},
    )
    made = Packer(job, objective).pack(coded, 0.0)
    return replace(made, float_psnr_db=psnr(made.picture, job.frame))


def trained(work: _Work, attempt: Attempt) -> Candidate:
    """Train, quantize, pack, and decode the packet; improve the latents if that lowers the loss."""
    job, objective, predictor = work.job, work.objective, attempt.predictor

    def candidate(seed: int) -> FrameEncoder:
        encoder = FrameEncoder(attempt.config, job.frame, job.references, seed=attempt.seed + seed)
        return (encoder if predictor is None else warm_start(encoder, predictor)).to(work.device)

    encoder = train_frame(candidate, work.training_objective, work, attempt.config, attempt.is_trained)
    encoder = encoder.cpu()
    quantize_for(encoder, objective, predictor, attempt.config.training.step_search)
    packer = Packer(job, objective, predictor)
    before = _coded(job, encoder, predictor)
    if not rdo_latents(encoder, objective, attempt.config.training.latent_rdo_rounds):
        return packer.best(*before)
    improved = packer.best(*_coded(job, encoder, predictor))
    return improved if improved.loss < packer.pack(*before).loss else best(improved, packer.best(*before))


def _coded(job: FrameJob, encoder: FrameEncoder, predictor: FrameNetworks | None) -> tuple[CodedFrame, float]:
    """The quantized frame as integers, and the PSNR of its float model."""
    named = None if predictor is None else predictor.display_index
    coded = code_frame(encoder, job.step.display_index, job.step.references, named)
    return coded, psnr(encoder.picture(), job.frame)
