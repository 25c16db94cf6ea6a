"""Input and output of a frame's encode, as picklable values, so that any process can run it.

A job is a function of the coding plan, the configuration and the frames that the plan names; nothing else decides the
bytes. The bytes depend neither on the order in which frames are coded nor on the process that codes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import Packet
from coolvid.codec.gop import CodingStep
from coolvid.codec.networks import FrameNetworks
from coolvid.picture.types import Frame
from coolvid.settings.config import FrameConfig


@dataclass(frozen=True, eq=False)
class Heritage:
    """Data that a frame passes on to frames that may inherit from it. A copy passes on its own heritage.

    networks: those of a coded frame. loss: the Objective of this frame. coding_index: its position in coding order.
    """

    networks: FrameNetworks
    loss: float
    coding_index: int


@dataclass(frozen=True, eq=False)
class FrameJob:
    """Everything the encode of one frame depends on.

    references: decoded pictures, in the step's order. configs: operating points to try, each in the header's table.
    heritage: of the step's predictor, if any. uses_prior: an I frame may predict its networks from the prior.
    reference_distortion: mean of the references' distortions, in units of the Objective. device: to train on.
    """

    step: CodingStep
    frame: Frame
    references: tuple[Frame, ...]
    configs: tuple[FrameConfig, ...]
    header: StreamHeader
    seed: int
    heritage: Heritage | None = None
    uses_prior: bool = False
    reference_distortion: float = 0.0
    device: str = "cpu"

    def pictures(self, references: Sequence[int]) -> list[Frame]:
        """Pictures of some of the step's references."""
        known = dict(zip(self.step.references, self.references, strict=True))
        return [known[i] for i in references]

    @property
    def total_iterations(self) -> int:
        """Training iterations if nothing stops early and no second attempt is needed."""
        return sum(config.training.total_iterations(is_fresh=self.heritage is None) for config in self.configs)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """A coded frame.

    packet: its bytes. picture: the decoded packet. heritage: for later frames, if any. loss: the objective of packet
    and picture, in the distortion plugin's units. distortion: of the picture, in units of the Objective. float_psnr_db:
    of the float model before quantization. best_validation: the least loss in training, None without training.
    training_time_s: time in train(), seconds.
    """

    packet: Packet
    picture: Frame
    heritage: Heritage | None
    loss: float
    distortion: float
    float_psnr_db: float
    n_iterations: int = 0
    training_time_s: float = 0.0
    best_validation: float | None = None
