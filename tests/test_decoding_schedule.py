"""From bytes to pictures: round trips through real packets, order of display, hostile streams, and no torch."""

import io
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coolvid.bitstream.crc import sealed
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import write_packet
from coolvid.bitstream.stream import StreamReader, StreamWriter
from coolvid.codec.architecture import FrameArchitecture, PluginRecord, Ports
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule
from coolvid.codec.networks import FrameNetworks, NetworkStore
from coolvid.decoding import ContextModel, choose_scales, prepared_frame, reconstruct_frame, schedule
from coolvid.decoding.packet import decode_frame, read_frame, tensors_of
from coolvid.decoding.schedule import decode_stream
from coolvid.errors import CoolvidError, MissingPlugin, StreamError
from coolvid.events import FrameDecoded
from coolvid.picture.types import ColorInfo, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.modules import module_tensors
from coolvid.plugin.registry import record
from coolvid.settings.config import CoolChicEncoderParameter

FORMAT = VideoFormat(18, 25, PixelFormat.YUV420, 8)
SIZE = (18, 25)
# Display index, type, references, in coding order: two groups, so that not every frame needs the first.
STRUCTURE = (
    (0, FrameType.I, ()),
    (4, FrameType.P, (0,)),
    (2, FrameType.B, (0, 4)),
    (1, FrameType.B, (0, 2)),
    (3, FrameType.B, (2, 4)),
    (5, FrameType.I, ()),
    (6, FrameType.P, (5,)),
)


def architecture(n_out, **changes):
    settings = {
        "layers_synthesis": "5-1-linear-relu,X-1-linear-none,X-3-residual-none",
        "latent_resolution": (0, 2),
        "hyperlatent_resolution": (2, 2),
        "spatial_context_arm": 6,
        "output_feature_ifce": 2,
    }
    return CoolChicEncoderParameter(SIZE, **{**settings, **changes}).architecture(n_out, record)


def frame_architecture(frame_type):
    residue = architecture(frame_type.n_residue)
    if frame_type is FrameType.I:
        return FrameArchitecture(frame_type, residue, None, None)
    grids = {"latent_resolution": (2, 3), "hyperlatent_resolution": None, "final_upsampling_type": "nearest"}
    motion = architecture(frame_type.n_motion, **grids, ifce_resolution=(2, 2))
    return FrameArchitecture(frame_type, residue, motion, record("warper", "sinc", Ports(1, 1), {}))


def coolchic(shape, rng, size=SIZE):
    modules = {
        name: CodedModule({s.name: np.rint(rng.normal(size=s.shape) * 30).astype(np.int32) for s in specs}, 8, 8)
        for name, specs in module_tensors(shape).items()
    }
    latents = tuple(np.rint(rng.laplace(size=g.shape)).astype(np.int32) for g in shape.grids(*size))
    return choose_scales(CodedCoolChic(shape, modules, latents), *size)


def header():
    return StreamHeader(
        format=FORMAT,
        fps=Fraction(25),
        color=ColorInfo(),
        n_frames=len(STRUCTURE),
        gop=4,
        intra_period=0,
        low_delay=False,
        configurations=tuple(frame_architecture(frame_type) for frame_type in FrameType),
    )


def coded_frame(index, frame_type, references, size=SIZE):
    shape = frame_architecture(frame_type)
    rng = np.random.default_rng(index)
    coolchics = {name: coolchic(each, rng, size) for name, each in shape.branches.items()}
    ranges = ((0, 255), (16, 240), (30, 200)) if frame_type is FrameType.I else None
    return CodedFrame(index, shape, references, ((index, -1),) * len(references), ranges, coolchics)


def packed(coded, networks=None, size=SIZE):
    models = {name: ContextModel(c.architecture, c.modules, *size) for name, c in coded.coolchics.items()}
    return write_packet(coded, list(FrameType).index(coded.frame_type), models, tensors_of, networks)


@pytest.fixture(scope="module")
def video():
    """(frames by display index as the encoder would reconstruct them, packets in coding order)."""
    frames, packets = {}, []
    for index, frame_type, references in STRUCTURE:
        coded = coded_frame(index, frame_type, references)
        frames[index] = reconstruct_frame(coded, [frames[r] for r in references], FORMAT)
        packets.append(packed(coded))
    return frames, packets


@pytest.fixture(scope="module")
def stream(video):
    file = io.BytesIO()
    with StreamWriter(file, header()) as writer:
        for packet in video[1]:
            writer.append(packet)
    return file.getvalue()


def test_packets_carry_all_integers(video):
    for (index, frame_type, references), packet in zip(STRUCTURE, video[1], strict=True):
        coded, found = coded_frame(index, frame_type, references), read_frame(packet.data, header())
        assert found.architecture == coded.architecture and found.display_index == index
        assert found.references == references and found.global_translation == coded.global_translation
        assert found.output_range == coded.output_range
        for name, branch in coded.coolchics.items():
            other = found.coolchics[name]
            assert all(np.array_equal(a, b) for a, b in zip(branch.latents, other.latents, strict=True))
            for key, module in branch.modules.items():
                assert other.modules[key].scales == module.scales
                for parameter, values in module.parameters.items():
                    assert np.array_equal(other.modules[key].parameters[parameter], values)


def test_decoded_bytes_are_the_encoders_own_pictures(video):
    frames, packets = video
    for (index, _, references), packet in zip(STRUCTURE, packets, strict=True):
        assert decode_frame(packet.data, header(), [frames[r] for r in references]) == frames[index]


RANGES = [
    ({}, [0, 1, 2, 3, 4, 5, 6], [0, 4, 2, 1, 3, 5, 6]),
    ({"first": 1, "last": 1}, [1], [0, 4, 2, 1]),
    ({"first": 4, "last": 4}, [4], [0, 4]),
    ({"first": 5}, [5, 6], [5, 6]),
    ({"last": 0}, [0], [0]),
    ({"first": 3, "last": 5}, [3, 4, 5], [0, 4, 2, 3, 5]),
    ({"first": 7}, [], []),
]


@pytest.mark.parametrize("part, shown, decoded", RANGES)
def test_frames_come_in_display_order_and_only_the_needed_are_decoded(video, stream, part, shown, decoded):
    events = []
    pictures = list(decode_stream(StreamReader(stream), **part, listen=events.append))
    assert pictures == [video[0][index] for index in shown]
    assert all(isinstance(event, FrameDecoded) for event in events)
    assert [event.display_index for event in events] == decoded


# Display index, type, references, predictor, unchanged modules, in coding order: frame 3 depends on the networks of 2
# and 1 without referring to frame 1; frame 7 follows another I frame.
FAMILY = (
    (0, FrameType.I, (), None, ()),
    (4, FrameType.P, (0,), None, ()),
    (1, FrameType.B, (0, 4), None, ()),
    (2, FrameType.B, (0, 4), 1, ("residue.arm", "residue.synthesis", "motion.arm")),
    (3, FrameType.B, (0, 4), 2, None),
    (5, FrameType.I, (), None, ()),
    (7, FrameType.P, (5,), None, ()),
    (6, FrameType.P, (5,), 7, None),
)


def predicted(index, frame_type, references, predictor, unchanged):
    """A frame with the modules of its predictor in place of those that stay unchanged; None: all of them."""
    own = coded_frame(index, frame_type, references)
    if predictor is None:
        return own
    coolchics = {}
    for branch, each in own.coolchics.items():
        known = predictor.modules[branch]
        taken = {n: m for n, m in known.items() if unchanged is None or f"{branch}.{n}" in unchanged}
        coolchics[branch] = choose_scales(replace(each, modules={**each.modules, **taken}), *SIZE)
    return replace(own, coolchics=coolchics, predictor=predictor.display_index)


@pytest.fixture(scope="module")
def family():
    """(frames by display index, bytes of a stream whose networks are predicted)."""
    frames, packets, store = {}, [], NetworkStore()
    for index, frame_type, references, predictor, unchanged in FAMILY:
        kept = {each.display_index: each for each in store.frames}
        coded = predicted(index, frame_type, references, kept.get(predictor), unchanged)
        frames[index] = reconstruct_frame(coded, [frames[r] for r in references], FORMAT)
        packets.append(packed(coded, store))
        store.add(FrameNetworks.of(coded))
    file = io.BytesIO()
    writer = StreamWriter(file, replace(header(), n_frames=len(FAMILY)))
    for packet in packets:
        writer.append(packet)
    writer.close()
    return frames, file.getvalue()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    "part, decoded",
    [
        ({}, [0, 4, 1, 2, 3, 5, 7, 6]),
        ({"first": 3, "last": 3}, [0, 4, 3]),
        ({"first": 2, "last": 3}, [0, 4, 2, 3]),
        ({"first": 6, "last": 6}, [5, 6]),
    ],
)
def test_networks_of_predictors_are_there_though_their_pictures_are_not(family, part, decoded, threads):
    frames, data = family
    events = []
    pictures = list(decode_stream(StreamReader(data), **part, threads=threads, listen=events.append))
    assert pictures == [frames[i] for i in range(part.get("first", 0), part.get("last", len(frames) - 1) + 1)]
    assert [event.display_index for event in events] == decoded


def test_frames_decode_one_by_one_with_a_store(family):
    frames, data = family
    reader, store = StreamReader(data), NetworkStore()
    for i, info in enumerate(reader.packets):
        references = [frames[r] for r in info.references]
        assert decode_frame(reader.read(i), reader.header, references, store) == frames[info.display_index]
    assert [each.display_index for each in store.frames] == [6, 7, 5]
    with pytest.raises(StreamError, match="inherits networks of frame 2"):
        decode_frame(reader.read(4), reader.header, [frames[0], frames[4]])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_predictor_is_found_when_what_depends_on_it_is_asked_for(family, threads):
    """Under a correct checksum: only the networks say that something is wrong."""
    frames, data = family
    reader = StreamReader(data)
    packet = reader.read(2)
    body = bytearray(packet[:-4])
    body[20:60] = bytes(40)
    damaged = data.replace(packet, sealed(bytes(body)))
    shown = []
    with pytest.raises(StreamError):
        for picture in decode_stream(StreamReader(damaged), first=2, threads=threads):
            shown.append(picture)
    assert shown == [] and list(decode_stream(StreamReader(damaged), first=5)) == [frames[5], frames[6], frames[7]]


@pytest.mark.parametrize("threads, limit", [(1, 4), (2, len(STRUCTURE))])
def test_pictures_are_dropped_after_their_last_use(stream, threads, limit):
    alive, most = [], 0
    for picture in decode_stream(StreamReader(stream), threads=threads):
        alive.append(weakref.ref(picture))
        del picture
        most = max(most, sum(each() is not None for each in alive))
    assert most <= limit and not any(each() is not None for each in alive)


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 16])
@pytest.mark.parametrize("part, shown, decoded", RANGES)
def test_threads_change_nothing(video, stream, threads, part, shown, decoded):
    events = []
    pictures = list(decode_stream(StreamReader(stream), **part, threads=threads, listen=events.append))
    assert pictures == [video[0][index] for index in shown]
    assert [event.display_index for event in events] == decoded


@pytest.mark.parametrize("half", ["prepared_frame", "finished_frame"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_meet_the_first_error_in_coding_order(monkeypatch, stream, threads, half):
    """Frame 2 cannot be decoded: what does not need it is shown before the error, and nothing else."""
    original = getattr(schedule, half)

    def fails(what, *arguments):
        if getattr(what, "coded", what).display_index == 2:
            raise StreamError("nothing here")
        return original(what, *arguments)

    monkeypatch.setattr(schedule, half, fails)
    shown = []
    with pytest.raises(StreamError, match="nothing here"):
        shown.extend(decode_stream(StreamReader(stream), threads=threads, listen=shown.append))
    assert [event.display_index for event in shown if isinstance(event, FrameDecoded)] == [0, 4]


def test_threads_end_with_their_consumer(stream):
    pictures = decode_stream(StreamReader(stream), threads=2)
    next(pictures)
    pictures.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("coolvid-decode")]


@pytest.mark.parametrize("n_started", [0, 1, 2, 5])
def test_threads_that_cannot_start_change_nothing(monkeypatch, video, stream, n_started):
    """Of the threads that are asked for together, so many start."""
    original, left = threading.Thread.start, [n_started] * 8

    def start(thread):
        if thread.name.startswith("coolvid-decode"):
            if not left[0]:
                left.pop(0)
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(decode_stream(StreamReader(stream), threads=4)) == [video[0][index] for index in range(len(STRUCTURE))]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("coolvid-decode")]


def test_threads_go_no_further_ahead_than_they_may(monkeypatch, stream):
    prepared = []

    def noted(coded, format, threads):
        prepared.append(coded.display_index)
        return prepared_frame(coded, format, threads)

    monkeypatch.setattr(schedule, "AHEAD_PER_THREAD", 1)
    monkeypatch.setattr(schedule, "prepared_frame", noted)
    pictures = decode_stream(StreamReader(stream), threads=2)
    next(pictures)
    time.sleep(0.1)
    assert set(prepared) <= {0, 4, 2}
    assert len(list(pictures)) == len(STRUCTURE) - 1


@pytest.mark.parametrize("n_frames, threads, each", [(1, 1, 1), (1, 2, 2), (1, 5, 5), (2, 2, 1), (2, 5, 2)])
def test_frames_fewer_than_threads_share_rows(monkeypatch, n_frames, threads, each):
    """Images high enough for several bands; the pictures are those of one thread."""
    asked = []

    def prepared(coded, format, threads):
        asked.append(threads)
        return prepared_frame(coded, format, threads)

    monkeypatch.setattr(schedule, "prepared_frame", prepared)
    size, structure = (171, 33), [(i, FrameType.I, ()) for i in range(n_frames)]
    format = VideoFormat(*size, PixelFormat.YUV420, 8)
    images = [coded_frame(*step, size) for step in structure]
    file = io.BytesIO()
    writer = StreamWriter(file, replace(header(), n_frames=n_frames, format=format))
    for image in images:
        writer.append(packed(image, size=size))
    writer.close()
    pictures = list(decode_stream(StreamReader(file.getvalue()), threads=threads))
    assert pictures == [reconstruct_frame(image, [], format) for image in images]
    assert asked == [each] * n_frames


def test_wrong_number_of_references(video):
    frames, packets = video
    with pytest.raises(StreamError, match="references"):
        decode_frame(packets[1].data, header(), [])
    with pytest.raises(StreamError, match="references"):
        decode_frame(packets[0].data, header(), [frames[0]])


@pytest.mark.parametrize(
    "kind, name, version, options, error, message",
    [
        ("arm", "nobody", 1, (2, True), MissingPlugin, "needs the arm plugin 'nobody'"),
        ("arm", "mlp", 7, (2, True), MissingPlugin, "version 7"),
        ("arm", "mlp", 1, (99, True), StreamError, "n_hidden is 99"),
        ("arm", "mlp", 1, (), StreamError, "takes 2 options"),
        ("synthesis", "conv", 1, (((9, 9, False, False),), True), StreamError, "kernel size"),
        ("synthesis", "conv", 1, (((2, 1, False, False),), True), StreamError, "has 2 outputs; this branch needs 3"),
        ("upsampling", "separable", 1, (9, 7), StreamError, "k_size is 9"),
    ],
)
def test_impossible_plugins_in_the_header(video, kind, name, version, options, error, message):
    whole = header()
    intra = whole.configurations[0]
    residue = replace(intra.residue, **{kind: PluginRecord(name, version, options)})
    broken = replace(whole, configurations=(replace(intra, residue=residue), *whole.configurations[1:]))
    with pytest.raises(error, match=message):
        decode_frame(video[1][0].data, broken, [])


def test_damaged_streams_are_stream_errors(stream):
    """Any flipped byte: a StreamError, or (outside of packets) the same pictures; never another exception."""
    rng = np.random.default_rng(0)
    whole = list(decode_stream(StreamReader(stream)))
    for position in rng.choice(len(stream), 40, replace=False):
        damaged = bytearray(stream)
        damaged[position] ^= int(rng.integers(1, 256))
        try:
            pictures = list(decode_stream(StreamReader(bytes(damaged))))
        except CoolvidError as error:
            assert isinstance(error, StreamError)
        else:
            assert pictures == whole


def test_truncated_streams_are_stream_errors(stream):
    for size in (0, 3, 20, len(stream) // 3, len(stream) - 40):
        with pytest.raises(StreamError):
            list(decode_stream(StreamReader(stream[:size])))


def test_decoding_imports_no_torch(stream, tmp_path):
    path = tmp_path / "video.cvd"
    path.write_bytes(stream)
    code = (
        "import sys\n"
        "from coolvid.bitstream.stream import StreamReader\n"
        "from coolvid.decoding.schedule import decode_stream\n"
        f"n = len(list(decode_stream(StreamReader({str(path)!r}))))\n"
        "heavy = sorted({'torch', 'av', 'click', 'rich'} & set(sys.modules))\n"
        f"sys.exit(0 if n == {len(STRUCTURE)} and not heavy else f'{{n}} frames, {{heavy}}')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
