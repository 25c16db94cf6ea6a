"""How much memory decoding takes, from the stream header alone."""

from __future__ import annotations

from coolvid.bitstream.headers import StreamHeader
from coolvid.codec.architecture import Architecture, FrameArchitecture
from coolvid.picture.types import VideoFormat

PROCESS_BYTES = 50_000_000
"""An interpreter with numpy and the kernels."""


def decoding_bytes(header: StreamHeader) -> int:
    """About the bytes that a process needs to decode this stream, with one thread: that is the least.

    Counts the arrays of one frame in the compiled path, the largest configuration of the stream, and the pictures of
    its references. Plugins of other packages may need more.
    """
    form = header.format
    picture = 2 * form.n_samples
    frames = (_frame(each, form) + (1 + each.frame_type.n_references) * picture for each in header.configurations)
    return PROCESS_BYTES + max(frames)


def _frame(frame: FrameArchitecture, form: VideoFormat) -> int:
    """Latents, outputs and flow of all branches, and the warped references (16 bits a sample)."""
    warped = 6 * frame.frame_type.n_references * form.height * form.width
    return warped + sum(_branch(each, form) for each in frame.branches.values())


def _branch(architecture: Architecture, form: VideoFormat) -> int:
    """int32 latents and noise, int16 outputs at the size of the finest grid and, if that is smaller, of the frame."""
    grids = architecture.grids(form.height, form.width)
    finest = grids[0].height * grids[0].width
    noise = 4 * architecture.n_planes * finest if architecture.common_randomness else 0
    enlarged = form.height * form.width if architecture.latent_resolution[0] else 0
    outputs = 2 * architecture.n_out * (finest + enlarged)
    return 4 * sum(grid.height * grid.width for grid in grids) + noise + outputs
