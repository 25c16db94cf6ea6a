"""coolvid: video compression by overfitting. Every frame is a tiny set of networks and latent grids, trained and sent.

    coolvid.encode("clip_352x288_30p_yuv420_8b.yuv", "clip.cvd", coolvid.EncodeConfig(lmbda=1e-3))
    coolvid.decode("clip.cvd", "clip.mp4")

Nothing imported here needs torch; encode() imports it when it starts to train.
"""

from .api import StreamInfo, decode, digest, encode, encode_frames, read_info
from .config import EncodeConfig, FrameConfig, PluginChoice, StructureConfig
from .errors import CoolvidError
from .reporting import ReportDone, report
from .targets import Target, encode_to_target
from .types import ColorInfo, DictTensorYUV, Frame, FrameType, PixelFormat, VideoFormat

__all__ = [
    "ColorInfo",
    "CoolvidError",
    "DictTensorYUV",
    "EncodeConfig",
    "Frame",
    "FrameConfig",
    "FrameType",
    "PixelFormat",
    "PluginChoice",
    "ReportDone",
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
