"""coolvid: video compression by overfitting. Every frame is a tiny set of networks and latent grids, trained and sent.

    coolvid.encode("clip_352x288_30p_yuv420_8b.yuv", "clip.cvd", coolvid.EncodeConfig(lmbda=1e-3))
    coolvid.decode("clip.cvd", "clip.mp4")

Nothing imported here needs torch; encode() imports it when it starts to train.
"""

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
from .settings.config import EncodeConfig, FrameConfig
from .study.report import ReportDone, report

__all__ = [
    "ChromaSiting",
    "ColorInfo",
    "CoolvidError",
    "DictTensorYUV",
    "DisplayInfo",
    "EncodeConfig",
    "Frame",
    "FrameConfig",
    "FrameType",
    "LightLevel",
    "MasteringDisplay",
    "PixelFormat",
    "PluginChoice",
    "ReportDone",
    "SourceSpec",
    "StreamInfo",
    "StructureConfig",
    "Target",
    "VideoFormat",
    "decode",
    "digest",
    "encode",
    "encode_frames",
    "encode_to_target",
    "read_info",
    "report",
]
