"""One measurement in its own process: `python -m tests.bench.worker TASK`, TASK as JSON; prints the result as JSON.

Kernels or not is decided by COOLVID_KERNELS in the environment. Times are milliseconds.
"""

import json
import resource
import statistics
import sys
import time
from contextlib import contextmanager
from functools import wraps

from coolvid import kernels


def milliseconds(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def repeat(call, budget_s, least=3, most=100):
    """Times of repeated calls: as many as fit the budget, after one that is not counted."""
    call()
    times, start = [], time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - start < budget_s):
        times.append(milliseconds(call))
    return times


def summary(times):
    return {"median": statistics.median(times), "least": min(times)}


def resident_mb(peak=False):
    """Memory of this process now, or at most so far."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


# -- training -------------------------------------------------------------------------------------------------


def training(frame_type, points, size, threads, budget_s, parts=True):
    """One training iteration, as a whole and by part."""
    from coolvid.encoding.model.frame_encoder import FrameEncoder
    from coolvid.encoding.objective import Objective
    from coolvid.encoding.threads import use_threads
    from coolvid.encoding.training.loop import Counters, PhaseRun, only_trainable
    from coolvid.encoding.training.train import FrameTask
    from coolvid.picture.types import FrameType
    from coolvid.settings.config import EncodeConfig
    from coolvid.settings.presets import frame_config

    from .frames import moving_texture

    kind = FrameType[frame_type]
    frames = moving_texture(3, *size)
    config = frame_config(EncodeConfig(**points), kind, 1, size[::-1])
    before = resident_mb()
    with use_threads(threads):
        encoder = FrameEncoder(config, frames[1], (frames[0], frames[2])[: kind.n_references])
        task = FrameTask(encoder, Objective.of(config, frames[1]), ("all",))
        with only_trainable(task):
            run = PhaseRun(task, config.training.phases[0], Counters(), "bench", False)
            counter = iter(range(10**9))
            out = {"iteration": summary(repeat(lambda: run.step(next(counter)), budget_s))}
            out["peak_mb"], out["above_mb"] = resident_mb(peak=True), resident_mb(peak=True) - before
            if parts:
                out["optimizers"] = summary(repeat(lambda: run.optimizers.step(1e-3), budget_s / 8))
                out |= by_part(encoder, budget_s / 4)
    return out


def by_part(encoder, budget_s):
    """Forward and backward of the heavy parts alone, on what the encoder has now; both branches added up."""
    out = {}
    for branch in encoder.branches.values():
        for name, (call, inputs) in branch_parts(branch).items():
            known = out.get(name, {"median": 0.0, "least": 0.0})
            new = summary(repeat(lambda call=call, inputs=inputs: there_and_back(call, inputs), budget_s / 4))
            out[name] = {key: known[key] + new[key] for key in known}
    if encoder.references:
        motion = encoder.branches["motion"]()
        out["warp"] = summary(repeat(lambda: there_and_back(encoder._warped, [motion.coarse]), budget_s / 2))
    return out


def branch_parts(branch):
    """name -> (function, inputs) of one Cool-chic's heavy parts."""
    import torch

    from coolvid.plugin.interfaces import TRAINED

    with torch.no_grad():
        flat = branch._quantize("gaussian", "softround", 0.3, 0.2, TRAINED)
        planes = [p[None, None] for p, g in zip(branch._split(flat), branch.grids, strict=True) if not g.is_hyper]
        dense = branch._dense(branch._split(flat), False, False)
    networks = branch.modules_by_name
    return {
        "arm": (lambda flat: branch._rate(flat, branch._split(flat)).sum(), [flat]),
        "upsampling": (lambda *grids: networks["upsampling"](grids), planes),
        "synthesis": (networks["synthesis"], [dense]),
    }


def there_and_back(call, inputs):
    import torch

    out = call(*[x.detach().requires_grad_() for x in inputs])
    outputs = out if isinstance(out, tuple) else (out,)
    torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])


# -- a whole encode -------------------------------------------------------------------------------------------


class Stopwatch:
    """Seconds spent in the compiled kernels: functions and classes of a module are replaced by timed ones."""

    def __init__(self):
        self.seconds = 0.0

    def timed(self, function):
        @wraps(function)
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return call

    def attach(self, module):
        """The module's twin with timed functions; classes are subclassed, so that C++ still knows their objects."""
        twin = type(sys)(module.__name__)
        for name, member in vars(module).items():
            setattr(twin, name, member if name.startswith("__") else self.twin(member))
        return twin

    def twin(self, member):
        if isinstance(member, type(sys)):
            return self.attach(member)
        if isinstance(member, type):
            own = {n: self.timed(f) for n, f in vars(member).items() if callable(f) and not n.startswith("__")}
            return type(member.__name__, (member,), own)
        return self.timed(member) if callable(member) else member


def encode(size, threads, iterations, out, n_frames):
    """A whole encode of n_frames with a group of 8, imports included, and which part of it was outside kernels."""
    watch, start = Stopwatch(), time.perf_counter()
    for name, member in list(vars(kernels).items()):
        if isinstance(member, type(sys)) and (member is kernels.compiled or name == "decode"):
            setattr(kernels, name, watch.attach(member))
    import coolvid

    from .frames import moving_texture

    config = coolvid.EncodeConfig(
        iterations=iterations, threads=threads, structure=coolvid.StructureConfig(gop=min(8, max(1, n_frames - 1)))
    )
    before_frames = time.perf_counter()
    frames = moving_texture(n_frames, *size)
    start += time.perf_counter() - before_frames
    done = coolvid.encode_frames(frames, out, config)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "outside": 1 - watch.seconds / seconds if kernels.compiled else 1.0,
        "imports_s": seconds - done.duration_s,
        "bytes": done.n_bytes,
        "psnr_db": done.psnr_db,
    }


# -- decoding -------------------------------------------------------------------------------------------------

DECODING = {  # part: functions whose time is counted, as module, name; those of a part do not call one another
    "latents": (("coolvid.decoding.schedule", "decode_latents"),),
    "packet": (("coolvid.decoding.schedule", "read_packet"),),
    "residue networks": (("coolvid.decoding.frame", "decode_planes"),),
    "motion networks and warp": (
        ("coolvid.decoding.frame", "decode_flow"),
        ("coolvid.decoding.frame", "_predictions"),
    ),
    "picture": (("coolvid.decoding.frame", "_picture"), ("coolvid.decoding.frame", "copied")),
}


def decode(path, threads, budget_s):
    """A stream's frames through decode_stream: frames per second, and on one thread milliseconds a frame by part."""
    from coolvid.bitstream.stream import StreamReader
    from coolvid.decoding.schedule import decode_stream

    reader = StreamReader(path)
    n = reader.header.n_frames

    def whole(threads=threads):
        for _ in decode_stream(reader, threads=threads):
            pass

    times = repeat(whole, budget_s, least=1, most=20)
    out = {"frame": {key: value / n for key, value in summary(times).items()}}
    out["fps"] = 1e3 / out["frame"]["median"]
    with watched() as watches:
        whole(threads=1)
    out["parts"] = {part: 1e3 * watch.seconds / n for part, watch in watches.items() if watch.seconds}
    return out


@contextmanager
def watched():
    """A stopwatch for every part of decoding that this installation has."""
    watches, undo = {}, []
    for part, functions in DECODING.items():
        watches[part] = Stopwatch()
        for module_name, name in functions:
            module = sys.modules.get(module_name)
            if module is not None and hasattr(module, name):
                undo.append((module, name, getattr(module, name)))
                setattr(module, name, watches[part].timed(getattr(module, name)))
    try:
        yield watches
    finally:
        for module, name, function in undo:
            setattr(module, name, function)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    task = {"training": training, "encode": encode, "decode": decode}[given.pop("task")]
    json.dump({"kernels": kernels.description(), **task(**given)}, sys.stdout)
