"""quantize_model() as the presets run it."""

from coolvid.encoding.quantization import quantize_model
from coolvid.encoding.training.loop import Counters


def quantized_model(model, frame, predictor=None):
    """The model, with the lambda and the step search of its own configuration."""
    config = model.config
    return quantize_model(model, frame, Counters(config.lmbda), predictor, step_search=config.training.step_search)
