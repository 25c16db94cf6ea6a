"""Distortions that tests install beside the built-in one: a multiple of it, and the mean absolute error."""

import torch

from coolvid.plugin import registry
from coolvid.plugin.interfaces import DistortionPlugin


def pairs(decoded, target):
    return [(decoded[n], target[n]) for n in "yuv"] if isinstance(target, dict) else [(decoded, target)]


def mean(planes, target):
    return tuple(plane / sum(t.numel() for _, t in pairs(target, target)) for plane in planes)


class Thousandfold(DistortionPlugin):
    """1000 times the mean squared error, said so."""

    name = "thousandfold"
    is_squared_error = True
    scale = 1000.0

    def distortion(self, decoded, target, state):
        squares = [1000 * (d - t).square() for d, t in pairs(decoded, target)]
        return torch.stack([plane.sum() for plane in mean(squares, target)]).sum()


class Absolute(DistortionPlugin):
    """The mean absolute error, a sum over samples."""

    name = "absolute"

    def distortion(self, decoded, target, state):
        return torch.stack([plane.sum() for plane in Absolute.errors(self, decoded, target)]).sum()

    def errors(self, decoded, target):
        return mean([(d - t).abs() for d, t in pairs(decoded, target)], target)


class Opaque(Absolute):
    """The same, not known to be a sum."""

    name = "opaque"

    def errors(self, decoded, target):
        return None


def install(folder, monkeypatch):
    """Make them known by name, in this process."""
    info = folder / "distortions-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distortions\nVersion: 1.0\n")
    lines = [f"{cls.name} = distortions:{cls.__name__}" for cls in (Thousandfold, Absolute, Opaque)]
    (info / "entry_points.txt").write_text("\n".join(["[coolvid.distortion]", *lines]))
    monkeypatch.syspath_prepend(str(folder))
    registry.refresh()
