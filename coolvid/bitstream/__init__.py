"""Bytes <-> values: stream header, packets, networks, latents. No model, no training, no registry, no torch."""
