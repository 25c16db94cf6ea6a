"""Trained frame encoder to integers: quantize_model, rdo_parameters, rdo_latents, code_frame. Inverse: inherit."""

from .coded import code_coolchic, code_frame
from .inherit import warm_start
from .latent_rdo import rdo_latents
from .quantize import quantize_for, quantize_model
from .rdo import rdo_parameters

__all__ = [
    "code_coolchic",
    "code_frame",
    "quantize_for",
    "quantize_model",
    "rdo_latents",
    "rdo_parameters",
    "warm_start",
]
