"""Differentiable model of the decoder, for training."""
