"""The search for a target: on made-up curves, where every answer is known, and once for real."""

import math
from pathlib import Path

import pytest

import coolvid
from coolvid import EncodeConfig, StructureConfig, Target, api, encode_to_target, events
from coolvid.encoding.targets import TrialPoint, local_slope, propose
from coolvid.errors import ConfigError, InputError, TrainingError

CARD = Path(__file__).parents[1] / "sequences" / "tiny" / "card_64x48.png"
PIXELS = 64 * 48


def natural(lmbda):
    """(bpp, dB) of a clip that behaves."""
    return 0.1 * (lmbda / 1e-3) ** -0.6, 34 - 5 * math.log10(lmbda / 1e-3)


def curved(lmbda):
    """Bits that never fall below those of the networks, quality that saturates."""
    return 0.05 + 0.02 * (lmbda / 1e-3) ** -0.9, 48 - 14 / (1 + (1e-4 / lmbda) ** 0.5)


def steep(lmbda):
    return 2.0 * (lmbda / 1e-3) ** -1.4, 30 - 11 * math.log10(lmbda / 1e-3)


def noisy(lmbda):
    """A natural clip, off by up to 3 % and 0.15 dB in a way that no neighbour shares."""
    rate, quality = natural(lmbda)
    jitter = math.sin(1e4 * math.log(lmbda))
    return rate * (1 + 0.03 * jitter), quality + 0.15 * jitter


class Codec:
    """Stands in for encode(): a curve instead of training. Counts whole and short encodes."""

    def __init__(self, curve, bias=1.0):
        self.curve, self.bias, self.whole, self.short, self.resumed = curve, bias, [], [], []
        self.interrupt_at = None

    def __call__(self, source, out, config, *, resume, listen, **_):
        is_short = config.iterations not in (0, 9999)
        (self.short if is_short else self.whole).append(config.lmbda)
        if resume:
            self.resumed.append(config.lmbda)
        if self.interrupt_at == len(self.whole) + len(self.short):
            Path(f"{out}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        rate, quality = self.curve(config.lmbda)
        rate *= self.bias if is_short else 1.0
        Path(f"{out}.part").unlink(missing_ok=True)
        Path(out).write_text(repr(config.lmbda))
        done = events.EncodeDone(1, round(rate * PIXELS / 8), quality, 1.0, "abc", rate, rate * PIXELS * 25)
        listen(done)
        return done


@pytest.fixture
def search(monkeypatch, tmp_path):
    """encode_to_target() on a curve: (result, codec, events)."""

    def run(curve, quantity, value, config=None, codec=None, **options):
        codec = codec or Codec(curve)
        monkeypatch.setattr(api, "encode", codec)
        seen = []
        config = config or EncodeConfig()
        result = encode_to_target(
            CARD, tmp_path / "out.cvd", Target(quantity, value), config, listen=seen.append, **options
        )
        return result, codec, seen

    return run


REACHABLE = [
    (curve, quantity, value)
    for curve in (natural, steep, noisy)
    for quantity, value in (("bpp", 0.02), ("bpp", 0.1), ("bpp", 1.0), ("psnr", 30.0), ("psnr", 34.0), ("psnr", 40.0))
] + [(curved, "bpp", 0.055), (curved, "bpp", 0.3), (curved, "psnr", 36.0), (natural, "bitrate", 10_000.0)]


@pytest.mark.parametrize("curve, quantity, value", REACHABLE)
def test_few_encodes_meet_the_target(search, tmp_path, curve, quantity, value):
    result, codec, _ = search(curve, quantity, value)
    assert result.is_met
    assert abs(result.value - value) <= (0.1 if quantity == "psnr" else 0.02 * value)
    assert len(codec.whole) <= (4 if curve is not noisy else 6)
    assert result.lmbda == codec.whole[result.number - 1] == float(f"{result.lmbda:.4g}")
    assert (tmp_path / "out.cvd").read_text() == repr(result.lmbda)
    assert [p.name for p in tmp_path.iterdir()] == ["out.cvd"]


@pytest.mark.parametrize("bias", [0.7, 1.0, 1.5])
def test_long_training_is_approached_by_short_trials(search, bias):
    """Which are off by a factor that the whole encodes do not know."""
    result, codec, seen = search(curved, "bpp", 0.2, EncodeConfig(iterations=9999), Codec(curved, bias))
    assert result.is_met
    assert len(codec.short) >= 1
    assert len(codec.whole) <= 3
    kinds = [event.is_short for event in seen if isinstance(event, events.TrialDone)]
    assert kinds == sorted(kinds, reverse=True)


def test_exact_main_phases_cannot_be_shortened(search):
    config = EncodeConfig(iterations=9999, training={"max_iterations": 5000})
    _, codec, _ = search(curved, "bpp", 0.2, config)
    assert codec.short == []


OUT_OF_REACH = [
    (curved, "bpp", 0.01, "cannot reach 0.01 bpp: at the largest lambda, 10, this source gives 0.05001 bpp"),
    (curved, "psnr", 55.0, "cannot reach 55.00 dB: at the smallest lambda, 1e-07, this source gives 47.5"),
    (curved, "bitrate", 500.0, "cannot reach 0.5 kbit/s: at the largest lambda, 10, .* 3.8.* kbit/s, the least"),
]


@pytest.mark.parametrize("curve, quantity, value, message", OUT_OF_REACH)
@pytest.mark.parametrize("iterations", [0, 9999])
def test_what_no_lambda_reaches_is_an_error_and_leaves_nothing(
    search, tmp_path, curve, quantity, value, message, iterations
):
    codec = Codec(curve)
    with pytest.raises(ConfigError, match=message):
        search(curve, quantity, value, EncodeConfig(iterations=iterations), codec)
    assert len(codec.whole) + len(codec.short) <= 6
    assert list(tmp_path.iterdir()) == []


def test_the_closest_is_kept_when_the_curve_jumps_over_the_target(search, tmp_path):
    def cliff(lmbda):
        return (0.2 if lmbda < 2e-3 else 0.08), 34.0

    result, codec, seen = search(cliff, "bpp", 0.1, max_encodes=5)
    assert (result.is_met, result.value, len(codec.whole)) == (False, 0.08, 5)
    assert (tmp_path / "out.cvd").read_text() == repr(result.lmbda)
    assert seen[-1] == result


def test_an_interrupted_search_goes_on_where_it_was(search, tmp_path):
    straight, _, _ = search(steep, "psnr", 38.0)
    codec = Codec(steep)
    codec.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        search(steep, "psnr", 38.0, codec=codec)
    left = {p.name for p in tmp_path.iterdir()}
    trial = f"out.cvd.trial-{codec.whole[-1]!r}.part"
    assert left == {"out.cvd", "out.cvd.search", trial, *(f"out.cvd.trial-{x!r}" for x in codec.whole[:2])}

    again = Codec(steep)
    result, _, seen = search(steep, "psnr", 38.0, codec=again, resume=True)
    assert result == straight
    assert again.resumed == again.whole[:1] == codec.whole[2:]
    done = [event.lmbda for event in seen if isinstance(event, events.TrialDone)]
    assert done == codec.whole[:2] + again.whole
    assert [p.name for p in tmp_path.iterdir()] == ["out.cvd"]


def test_only_the_same_search_can_be_resumed(search, tmp_path):
    with pytest.raises(InputError, match=r"nothing to resume: there is no .*out.cvd.search"):
        search(natural, "bpp", 0.3, resume=True)
    codec = Codec(natural)
    codec.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        search(natural, "bpp", 0.3, codec=codec)
    for quantity, value, config in (("bpp", 0.2, None), ("psnr", 0.3e2, None), ("bpp", 0.3, EncodeConfig(seed=1))):
        with pytest.raises(InputError, match="another source, target or configuration; delete it"):
            search(natural, quantity, value, config, resume=True)
    (tmp_path / "out.cvd.search").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*search"):
        search(natural, "bpp", 0.3, resume=True)
    result, _, _ = search(natural, "bpp", 0.3)  # anew, over what was left
    assert result.is_met
    assert [p.name for p in tmp_path.iterdir()] == ["out.cvd"]


def test_an_error_clears_up(search, tmp_path):
    def diverging(lmbda):
        raise TrainingError("the loss is nan")

    with pytest.raises(TrainingError):
        search(diverging, "bpp", 0.3)
    assert list(tmp_path.iterdir()) == []


BAD_TARGETS = [
    ("vmaf", 90, "quantity 'vmaf'; choose one of: bpp, bitrate, psnr"),
    ("bpp", 0.0, "target bpp is 0.0"),
    ("bitrate", math.nan, "target bitrate is nan"),
    ("psnr", 0.5, "target psnr is 0.5; choose 1..120"),
]


@pytest.mark.parametrize("quantity, value, message", BAD_TARGETS)
def test_what_is_no_target_is_refused(quantity, value, message):
    with pytest.raises(ConfigError, match=message):
        Target(quantity, value)


def test_standard_input_cannot_be_searched(tmp_path):
    with pytest.raises(InputError, match="standard input can be read once"):
        encode_to_target("-", tmp_path / "out.cvd", Target("bpp", 0.1))


def test_the_next_lambda_lies_where_a_line_meets_the_target():
    line = [TrialPoint(1e-3, 0.5), TrialPoint(1e-3 * math.e, 0.25)]
    assert local_slope(line, -1.0) == pytest.approx(-0.25)
    assert propose(line, -1.0) == pytest.approx(1e-3 * math.exp(2), rel=1e-3)
    around = [TrialPoint(1e-3, 0.5), TrialPoint(1e-2, -0.5)]
    assert propose(around, -1.0) == pytest.approx(math.sqrt(1e-5), rel=1e-3)
    assert propose([TrialPoint(1e-3, 0.5)], -0.5) == pytest.approx(1e-3 * math.e, rel=1e-3)
    assert propose([TrialPoint(10.0, 0.5)], -0.5) is None
    tried = propose(around, -1.0)
    assert propose([*around, TrialPoint(tried, 0.0)], -1.0) != tried


def test_the_file_is_that_of_an_encode_at_the_found_lambda(tmp_path):
    config = EncodeConfig(preset="fast", iterations=12, threads=1, structure=StructureConfig(gop=1))
    at_start = coolvid.encode(CARD, tmp_path / "start.cvd", config)
    found = encode_to_target(CARD, tmp_path / "out.cvd", Target("psnr", at_start.psnr_db - 0.5), config, max_encodes=2)
    assert found.number <= 2
    assert found.encode.n_bytes == (tmp_path / "out.cvd").stat().st_size
    exact = EncodeConfig(**{**vars(config), "lmbda": found.lmbda})
    again = coolvid.encode(CARD, tmp_path / "again.cvd", exact)
    assert (tmp_path / "again.cvd").read_bytes() == (tmp_path / "out.cvd").read_bytes()
    assert again.digest == found.encode.digest
