"""coolvid: video compression by overfitting. Every frame is a tiny set of networks and latent grids, trained and sent.

    coolvid.encode("clip_352x288_30p_yuv420_8b.yuv", "clip.cvd", coolvid.EncodeConfig(lmbda=1e-3))
    coolvid.decode("clip.cvd", "clip.mp4")

Nothing imported here needs torch; encode() imports it when it starts to train. The names in TRAINING load it when they
are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .api import StreamInfo, decode, digest, encode, encode_frames, encode_to_target, read_info
from .codec.gop import StructureConfig
from .encoding.targets import Target
from .errors import CoolvidError
from .media import SourceSpec
from .picture.types import (
    ChromaSiting,
    ColorInfo,
    DictTensorYUV,
    DisplayInfo,
    Frame,
    FrameType,
    LightLevel,
    MasteringDisplay,
    PixelFormat,
    VideoFormat,
)
from .plugin.choice import PluginChoice
from .settings.config import CoolChicEncoderParameter, EncodeConfig, FrameConfig
from .study.report import ReportDone, report

if TYPE_CHECKING:
    from .encoding.loss import LossFunctionOutput, RateDistortionLoss, convert_lmbda, loss_function
    from .encoding.manager import FrameEncoderManager
    from .encoding.model.coolchic import CoolChicEncoder
    from .encoding.model.frame_encoder import FrameEncoder
    from .encoding.pack import header_of, pack
    from .encoding.quantization.quantize import quantize_model
    from .encoding.training.train import train

TRAINING = {
    "CoolChicEncoder": "encoding.model.coolchic",
    "FrameEncoder": "encoding.model.frame_encoder",
    "FrameEncoderManager": "encoding.manager",
    "LossFunctionOutput": "encoding.loss",
    "RateDistortionLoss": "encoding.loss",
    "convert_lmbda": "encoding.loss",
    "header_of": "encoding.pack",
    "loss_function": "encoding.loss",
    "pack": "encoding.pack",
    "quantize_model": "encoding.quantization.quantize",
    "train": "encoding.training.train",
}

__all__ = [
    "ChromaSiting",
    "ColorInfo",
    "CoolChicEncoder",
    "CoolChicEncoderParameter",
    "CoolvidError",
    "DictTensorYUV",
    "DisplayInfo",
    "EncodeConfig",
    "Frame",
    "FrameConfig",
    "FrameEncoder",
    "FrameEncoderManager",
    "FrameType",
    "LightLevel",
    "LossFunctionOutput",
    "MasteringDisplay",
    "PixelFormat",
    "PluginChoice",
    "RateDistortionLoss",
    "ReportDone",
    "SourceSpec",
    "StreamInfo",
    "StructureConfig",
    "Target",
    "VideoFormat",
    "convert_lmbda",
    "decode",
    "digest",
    "encode",
    "encode_frames",
    "encode_to_target",
    "header_of",
    "loss_function",
    "pack",
    "quantize_model",
    "read_info",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    """The names of TRAINING, whose modules import torch."""
    if name not in TRAINING:
        raise AttributeError(f"module 'coolvid' has no attribute '{name}'")
    return getattr(import_module(f".{TRAINING[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *TRAINING})
