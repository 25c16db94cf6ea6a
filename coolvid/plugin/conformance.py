"""Shared parts of the conformance checks in testing.py: a plugin under test, random parameters, the comparison."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.codec.architecture import PluginRecord, Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import INT16_MAX, INT16_MIN, FixedPoint, Integers
from coolvid.errors import PluginError

from . import registry
from .choice import PluginChoice
from .interfaces import NormativePlugin, Plugin

WEIGHT_SHIFT = 10
BIAS_SHIFT = 14
# Maximum root mean square difference of the integer form from the float form, relative to the output's own.
AGREEMENT = 0.01
# Maximum change of a float output under equivalent parameters, relative to its largest magnitude.
SAME = 1e-4
MAX_SCALES = 64


class Failure(Exception):
    """A requirement that does not hold; Subject.checking adds the plugin's name."""


def require(condition: bool, text: str) -> None:
    """Raise Failure with this text unless the condition holds."""
    if not condition:
        raise Failure(text)


def finite(what: str, x: Any) -> None:
    """Raise Failure unless all values of an array or tensor are finite."""
    values = x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)
    bad = int((~np.isfinite(values)).sum())
    require(bad == 0, f"{bad} of {values.size} values of the {what} are not finite")


def rng(seed: int) -> np.random.Generator:
    """The generator of all test data."""
    return np.random.default_rng(seed)


@contextmanager
def seeded() -> Iterator[None]:
    """Run with a fixed state of torch's generator, then restore the caller's. Raises Failure if the code used it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        yield
        unchanged = torch.equal(before, torch.get_rng_state())
        require(unchanged, "it draws from torch's global random generator; take noise as an argument")


@dataclass(frozen=True)
class Case:
    """One input in both forms.

    floats: arguments of the module, in real values. integers: the same for the integer form. shape: of the module's
    output; the integer output lacks the leading 1. out_bits: fractional bits of the integer output, None to
    read ``.out_bits``. limit: largest absolute difference, replaces AGREEMENT. fixed_inputs: inputs without a gradient.
    """

    floats: tuple[Any, ...]
    integers: tuple[Any, ...]
    shape: tuple[int, ...]
    out_bits: int | None = None
    limit: float | None = None
    fixed_inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Subject:
    """The plugin under test, by name."""

    kind: str
    name: str

    @contextmanager
    def checking(self, what: str) -> Iterator[None]:
        """Turn any exception inside into a PluginError that names the plugin and the check."""
        try:
            yield
        except Failure as failure:
            raise PluginError(f"{self.kind} '{self.name}' fails '{what}': {failure}") from None
        except PluginError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self.kind} '{self.name}' fails '{what}': {text}") from error

    def encoder_only(self, given: Mapping[str, Any] | None) -> Plugin:
        """The plugin, with name and options checked."""
        options = registry.make_options(self.kind, self.name, given or {})
        self._check_class()
        self._check_options(options)
        return registry.make(self.kind, self.name, given)

    def normative(self, ports: Ports, given: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> NormativePlugin:
        """The plugin as the decoder builds it from its record, with name, options and tensors checked."""
        record = registry.record(self.kind, self.name, ports, given or {}, settings)
        self._check_class()
        options = registry.load(self.kind, self.name).Options
        self._check_options(options.from_values(record.options))
        plugin = registry.build(self.kind, record, ports)
        with self.checking("tensors"):
            _check_tensors(plugin)
        return plugin

    def _check_class(self) -> None:
        with self.checking("name"):
            named = getattr(registry.load(self.kind, self.name), "name", None)
            require(named == self.name, f"the class is named {named!r}, its entry point '{self.name}'")

    def _check_options(self, options: Any) -> None:
        """values() with from_values(), and the command-line text, round-trip to the same options."""
        cls = type(options)
        with self.checking("options"):
            back = cls.from_values(options.values())
            require(back == options, f"{options} comes back as {back} from values()")
            require(hash(back) == hash(options), f"{options} does not have a stable hash")
            text = str(PluginChoice(self.name, tuple((f.name, getattr(options, f.name)) for f in fields(cls))))
            choice = PluginChoice.parse(text)
            read = registry.make_options(self.kind, choice.name, dict(choice.options))
            require(read == options, f"{options} comes back as {read} from the text '{text}'")

    def check_module(self, plugin: NormativePlugin, case: Case) -> None:
        """State dict, output shape, finite gradients everywhere, no random numbers, reproducible output."""
        with self.checking("state dict"):
            module = _fresh(plugin)
            found = {name: tuple(t.shape) for name, t in module.state_dict().items()}
            wanted = {spec.name: spec.shape for spec in plugin.tensors()}
            require(found == wanted, f"the module has {found}, tensors() has {wanted}")
            with seeded_start():
                other = plugin.module().state_dict()
            same = all(torch.equal(other[name], t) for name, t in module.state_dict().items())
            require(same, "two modules made after the same torch.manual_seed start differently")
        with self.checking("module output"), seeded():
            floats = _leaves_apart(case)
            out = module(*floats)
            require(tuple(out.shape) == case.shape, f"the shape is {tuple(out.shape)}, not {case.shape}")
            finite("output", out)
            require(torch.equal(out, module(*floats)), "two calls with the same input differ")
        with self.checking("gradients"):
            out.square().sum().backward()
            for name, leaf in (*module.named_parameters(), *_named_leaves(floats)):
                if leaf.requires_grad:
                    require(leaf.grad is not None, f"no gradient reaches {name}")
                    finite(f"gradient of {name}", leaf.grad)

    def check_integer(self, plugin: NormativePlugin, case: Case) -> Callable[..., Integers]:
        """Agreement with the module at quantized random parameters and at equivalent parameters; scales; reproducible
        output. Returns the integer form with its chosen scales."""
        parameters = random_parameters(plugin)
        floats = {name: parameter.as_float() for name, parameter in parameters.items()}
        expected = _float_output(plugin, floats, case)
        for what, equal in (("canonical", plugin.canonical(floats)), ("ordered", plugin.ordered(floats))):
            with self.checking(f"{what} parameters"):
                error = np.abs(_float_output(plugin, equal, case) - expected).max()
                limit = SAME * max(1.0, float(np.abs(expected).max()))
                require(error <= limit, f"they change the output by up to {error:.4g}; at most {limit:.4g} is allowed")
        with self.checking("float/integer agreement"):
            chooser = plugin.integer(parameters)
            first = chooser(*_read_only(case.integers))
            _check_output(first, case)
            bits = chooser.out_bits if case.out_bits is None else case.out_bits
            _compare(first * 2.0**-bits, expected, case.limit)
        with self.checking("scales"):
            scales = tuple(chooser.scales) if plugin.n_scales() else ()
            good = len(scales) == plugin.n_scales() and all(type(s) is int and 0 <= s <= 15 for s in scales)
            require(good, f"scales {scales}; expected {plugin.n_scales()} whole numbers 0..15")
        with self.checking("determinism of the integer form"):
            integer = plugin.integer(parameters, scales)
            for _ in range(2):
                changed = int((integer(*_read_only(case.integers)) != first).sum())
                require(changed == 0, f"{changed} of {first.size} values change in a second run with scales {scales}")
        return cast(Callable[..., Integers], integer)

    def check_range(self, integer: Callable[..., Integers], inputs: tuple[Any, ...]) -> None:
        """Outputs stay within int16 for extreme inputs."""
        with self.checking("int16 range"):
            out = integer(*inputs)
            low, high = int(out.min()), int(out.max())
            require(low >= INT16_MIN and high <= INT16_MAX, f"extreme inputs give {low}..{high}, outside int16")


def _check_tensors(plugin: NormativePlugin) -> None:
    specs = plugin.tensors()
    names = [spec.name for spec in specs]
    require(len(set(names)) == len(names), f"tensors() names {names} repeat")
    for spec in specs:
        sized = all(type(n) is int and n >= 1 for n in spec.shape) and len(spec.shape) >= 1
        require(sized and spec.kind in ("weight", "bias"), f"tensors() has {spec}")
    macs = plugin.macs()
    require(math.isfinite(macs) and macs >= 0, f"macs() is {macs}")
    require(0 <= plugin.n_scales() <= MAX_SCALES, f"n_scales() is {plugin.n_scales()}; 0..{MAX_SCALES} fit the stream")


@contextmanager
def seeded_start() -> Iterator[None]:
    """Run with a fixed state of torch's generator, for initial values, then restore the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _fresh(plugin: NormativePlugin) -> Any:
    with seeded_start():
        return plugin.module()


def _leaves_apart(case: Case) -> tuple[Any, ...]:
    """The module's arguments as new tensors that require gradients, except case.fixed_inputs."""

    def leaf(x: Any, wanted: bool) -> Any:
        if isinstance(x, list):
            return [leaf(item, wanted) for item in x]
        return x.clone().requires_grad_(wanted)

    return tuple(leaf(x, i not in case.fixed_inputs) for i, x in enumerate(case.floats))


def _named_leaves(floats: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    for i, x in enumerate(floats):
        for j, leaf in enumerate(x if isinstance(x, list) else [x]):
            yield f"input {i}" + (f", grid {j}" if isinstance(x, list) else ""), leaf


def _read_only(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies that raise on writes."""

    def protect(x: Any) -> Any:
        if isinstance(x, list):
            return [protect(item) for item in x]
        if isinstance(x, np.ndarray):
            x = x.copy()
            x.flags.writeable = False
        return x

    return tuple(protect(x) for x in inputs)


def random_parameters(plugin: NormativePlugin) -> dict[str, FixedPoint]:
    """Quantized parameters near the module's initial values, as decoded from a stream."""
    start = _fresh(plugin).state_dict()
    generator = rng(7)
    out = {}
    for spec in plugin.tensors():
        shift = WEIGHT_SHIFT if spec.kind == "weight" else BIAS_SHIFT
        real = start[spec.name].double().numpy() + generator.normal(0, _spread(spec), spec.shape)
        values = np.round(np.ldexp(real, shift)).astype(np.int32)
        values.flags.writeable = False
        out[spec.name] = FixedPoint(values, shift)
    return out


def randomized(plugin: NormativePlugin) -> Any:
    """The module at random_parameters()."""
    module = _fresh(plugin)
    module.load_state_dict({n: torch.from_numpy(p.as_float()).float() for n, p in random_parameters(plugin).items()})
    return module


def _spread(spec: TensorSpec) -> float:
    """Standard deviation that preserves the magnitude of activations."""
    return 0.3 if spec.kind == "bias" else 0.5 / math.sqrt(math.prod(spec.shape[1:]) if len(spec.shape) > 1 else 16)


def _float_output(plugin: NormativePlugin, parameters: Mapping[str, NDArray[np.float64]], case: Case) -> Any:
    """The module's output in evaluation mode at these parameters, without the leading 1 of pictures."""
    module = _fresh(plugin)
    module.load_state_dict({name: torch.from_numpy(values).float() for name, values in parameters.items()})
    with torch.no_grad():
        out = module.eval()(*case.floats).double().numpy()
    return out[0] if len(case.shape) == 4 else out


def _check_output(out: Any, case: Case) -> None:
    shape = case.shape[1:] if len(case.shape) == 4 else case.shape
    require(isinstance(out, np.ndarray), f"the output is a {type(out).__name__}, not a numpy array")
    require(out.shape == shape, f"the output has shape {out.shape}, not {shape}")
    require(out.dtype == np.int32, f"the output is {out.dtype}, not int32")


def _compare(got: Any, expected: Any, limit: float | None) -> None:
    error = got - expected
    if limit is not None:
        worst = float(np.abs(error).max())
        require(worst <= limit, f"the integer form differs by up to {worst:.4g}; at most {limit:g} is allowed")
        return
    size, distance = (float(np.sqrt(np.square(x).mean())) for x in (expected, error))
    require(
        distance <= AGREEMENT * size,
        f"the integer form differs by {distance:.4g} (root mean square) where the output is {size:.4g}; "
        f"at most {AGREEMENT:.0%} is allowed",
    )


_ALONE = """
import sys
from coolvid.plugin import registry
from coolvid.codec.architecture import PluginRecord, Ports
before = "torch" in sys.modules
plugin = registry.build({kind!r}, {record!r}, {ports!r})
import numpy as np
from coolvid.codec.fixed_point import FixedPoint
zeros = {{s.name: FixedPoint(np.zeros(s.shape, np.int32), 0) for s in plugin.tensors()}}
plugin.integer(zeros, (0,) * plugin.n_scales())
sys.exit("importing torch" if "torch" in sys.modules and not before else 0)
"""


def run_alone(subject: Subject, plugin: NormativePlugin) -> None:
    """Build the integer form in a new process: decoding must not import torch."""
    with subject.checking("integer form without torch"):
        record = PluginRecord(subject.name, plugin.version, plugin.options.values())
        script = _ALONE.format(kind=subject.kind, record=record, ports=plugin.ports)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        command = [sys.executable, "-P", "-c", script]  # -P: the path of this process, and no current folder before it
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        require(done.returncode == 0, f"a process that only decodes ends with: {reason[0]}")
