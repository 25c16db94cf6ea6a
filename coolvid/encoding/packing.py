"""A frame's integers as a packet and its decoded picture: a candidate with its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coolvid.bitstream.packet import Packet, latent_payloads, write_packet
from coolvid.codec.coded_frame import CodedFrame, CodedModule
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.decoding import ContextModel
from coolvid.decoding.packet import decode_frame, tensors_of
from coolvid.picture.types import Frame

from .job import FrameJob
from .objective import Objective


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to send a frame.

    picture: the decoded packet. networks: those that a decoder keeps of it, None for a copy. loss: the objective of
    picture and packet. float_psnr_db: of the float model before quantization. payloads: coded latents of each branch.
    """

    packet: Packet
    picture: Frame
    networks: FrameNetworks | None
    loss: float
    float_psnr_db: float
    payloads: Mapping[str, bytes]


def best(*candidates: Candidate) -> Candidate:
    """The first candidate with the least loss."""
    return min(candidates, key=lambda each: each.loss)


@dataclass(frozen=True, eq=False)
class Packer:
    """Packs one frame. predictor: frame whose networks the packet may be predicted from."""

    job: FrameJob
    objective: Objective
    predictor: FrameNetworks | None = None

    def best(self, coded: CodedFrame, float_psnr_db: float) -> Candidate:
        """The best of equivalent packets: with activation scales from the predictor, branch by branch, and without a
        predictor."""
        found = self.pack(coded, float_psnr_db)
        if coded.predictor is None or self.predictor is None:
            return found
        for branch in coded.coolchics:
            trial = _with_scales(coded, branch, self.predictor)
            made = self.pack(trial, float_psnr_db)
            if made.loss < found.loss:
                found, coded = made, trial
        return best(found, self.pack(replace(coded, predictor=None), float_psnr_db, found.payloads))

    def pack(self, coded: CodedFrame, float_psnr_db: float, payloads: Mapping[str, bytes] | None = None) -> Candidate:
        """The packet of exactly these integers. payloads: latent_payloads(), if already known."""
        job, models = self.job, self._context_models(coded)
        if payloads is None:
            payloads = latent_payloads(coded, models)
        configuration = job.header.configurations.index(coded.architecture)
        packet = write_packet(coded, configuration, models, tensors_of, self._store(), payloads)
        store = self._store()
        picture = decode_frame(packet.data, job.header, job.pictures(coded.references), store)
        networks = None if coded.is_copy else store.frames[0]
        loss = self.objective.of_packet(picture, packet.data)
        return Candidate(packet, picture, networks, loss, float_psnr_db, payloads)

    def _store(self) -> NetworkStore:
        """The part of the decoder's store that this frame needs; the prior is always in it."""
        if self.predictor is None or self.predictor.display_index == PRIOR:
            return NetworkStore()
        return NetworkStore([self.predictor])

    def _context_models(self, coded: CodedFrame) -> dict[str, ContextModel]:
        """The integer context model of each branch, for entropy coding."""
        size = self.job.frame.height, self.job.frame.width
        branches = coded.coolchics.items()
        return {name: ContextModel(branch.architecture, branch.modules, *size) for name, branch in branches}


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
