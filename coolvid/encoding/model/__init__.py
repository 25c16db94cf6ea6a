"""The differentiable twin of reconstruction, for training."""
