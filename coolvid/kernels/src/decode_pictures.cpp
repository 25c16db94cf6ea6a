// The Python face of the kernels that make pictures: from latents to planes, warp, blending.
#include "decode_arrays.h"
#include "decode_frame.h"
#include "decode_memory.h"
#include "decode_synthesis.h"
#include "decode_upsampling.h"
#include "decode_warp.h"
#include "pool.h"

namespace {

// An array in memory that returns to SpareMemory with it.
template <class T>
py::array_t<T> recycled(const std::vector<py::ssize_t>& shape) {
  size_t n = 1;
  for (auto size : shape) n *= static_cast<size_t>(size);
  auto* values = new integer::Plain<T>(n);
  py::capsule owner(values, [](void* p) { delete static_cast<integer::Plain<T>*>(p); });
  return py::array_t<T>(shape, values->data(), owner);
}

IntegerLayer conv(const Ints& weights, const Ints& bias, int shift) {
  expect(weights.ndim() == 4 && weights.shape(2) == weights.shape(3), "weights [n_out, n_in, k, k]");
  const int taps = static_cast<int>(weights.shape(2) * weights.shape(3)), n_in = static_cast<int>(weights.shape(1));
  std::vector<std::pair<int, int>> order;
  for (int first = 0; first < n_in; first += 2)
    for (int at = 0; at < taps; at++) pair_up(order, first, std::min(2, n_in - first), taps, at);
  return layer(weights, bias, shift, order);
}

struct SynthesisModel {
  std::vector<integer::IntegerConv> layers;
  IntegerLayer stabiliser;
  int n_out() const { return layers.back().map.n_out; }
};

SynthesisModel synthesis_model(py::ssize_t n_in, const std::vector<Conv>& layers, const std::optional<Linear>& stabiliser) {
  expect(!layers.empty(), "no layers");
  SynthesisModel model;
  py::ssize_t channels = n_in;
  for (auto& [weights, bias, shift, relu] : layers) {
    expect(weights.ndim() == 4 && weights.shape(1) == channels && weights.shape(2) % 2 && weights.shape(2) <= 7, "layers do not fit");
    model.layers.push_back({conv(weights, bias, shift), static_cast<int>(weights.shape(2)), relu});
    channels = weights.shape(0);
  }
  if (stabiliser) {
    auto& [weights, bias, shift] = *stabiliser;
    IntegerLayer& side = model.stabiliser = conv(weights, bias, shift);
    expect(side.n_out == channels && side.n_in == weights.shape(1) && side.n_in <= n_in, "the stabiliser does not fit");
    // A channel of noise that shares a pair with the last one it sees has weight 0.
  }
  return model;
}

std::vector<integer::IntegerKernel> filters(const std::vector<Filter>& given, bool odd) {
  std::vector<integer::IntegerKernel> out;
  for (auto& [taps, shift] : given) {
    expect(taps.size() > 0 && taps.size() <= 16 && taps.size() % 2 == odd && shift <= 31, "not a filter");
    for (py::ssize_t i = 0; i < taps.size(); i++) expect(std::abs(taps.data()[i]) < 1 << 14, "a tap is beyond 2**14");
    out.push_back({std::vector<int32_t>(taps.data(), taps.data() + taps.size()), shift});
  }
  return out;
}

struct Latents {
  std::vector<const int32_t*> values;
  std::vector<std::pair<int, int>> sizes;
};

Latents latents_of(const std::vector<Ints>& latents) {
  expect(!latents.empty(), "no latents");
  Latents out;
  for (auto& latent : latents) {
    expect(latent.ndim() == 2 && latent.size() > 0, "latents [h, w]");
    out.values.push_back(latent.data());
    out.sizes.push_back({static_cast<int>(latent.shape(0)), static_cast<int>(latent.shape(1))});
    auto [height, width] = out.sizes.back();
    if (out.sizes.size() > 1) {
      auto [finer_height, finer_width] = out.sizes[out.sizes.size() - 2];
      expect(finer_height <= 2 * height && finer_width <= 2 * width, "a grid is less than half the next finer one");
    }
  }
  return out;
}

integer::IntegerUpsampling upsampling_of(size_t n_grids, const std::vector<Filter>& up, const std::vector<Filter>& pre, int bits) {
  expect(up.size() + 1 == n_grids && pre.size() + 1 == n_grids, "a pair of filters for each step");
  expect(bits >= 0 && bits <= 15, "0..15 fractional bits");
  return integer::IntegerUpsampling(filters(up, false), filters(pre, true), bits);
}

Shorts synthesis(const Shorts& planes, const std::vector<Conv>& layers, const std::optional<Linear>& stabiliser) {
  expect(planes.ndim() == 3 && planes.size() > 0, "planes [n_in, H, W]");
  const SynthesisModel model = synthesis_model(planes.shape(0), layers, stabiliser);
  const int n_in = static_cast<int>(planes.shape(0)), height = static_cast<int>(planes.shape(1)), width = static_cast<int>(planes.shape(2));
  Shorts out = recycled<int16_t>({model.n_out(), height, width});
  const int16_t* from = planes.data();
  int16_t* to = out.mutable_data();
  py::gil_scoped_release release;
  integer::IntegerSynthesis(model.layers, model.stabiliser, n_in, height, width).run(
      [=](int p, int y, int16_t* row) { std::copy_n(from + (static_cast<size_t>(p) * height + y) * width, width, row); }, to, 0, height);
  return out;
}

Shorts upsampling(const std::vector<Ints>& latents, const std::vector<Filter>& up, const std::vector<Filter>& pre, int bits) {
  const Latents from = latents_of(latents);
  auto kernel = upsampling_of(latents.size(), up, pre, bits);
  const auto [height, width] = from.sizes[0];
  Shorts out = recycled<int16_t>({static_cast<py::ssize_t>(latents.size()), height, width});
  int16_t* to = out.mutable_data();
  py::gil_scoped_release release;
  kernel.set(from.values, from.sizes);
  integer::PaddedRow middle = kernel.scratch();
  integer::Plain<int16_t> row(static_cast<size_t>(width));
  for (int i = 0; i < kernel.planes(); i++)
    for (int y = 0; y < height; y++, to += width) {
      kernel.row(i, y, middle, row.data());
      std::copy_n(row.data(), width, to);
    }
  return out;
}

// Into how many bands a picture is cut for so many threads: several each, since they may not run equally fast, but so
// high that the rows which neighbours both compute (those that the synthesis reaches) count for little.
int bands_for(int height, int threads) {
  constexpr int LEAST_ROWS = 64, PER_THREAD = 4;
  return threads > 1 ? std::clamp(height / LEAST_ROWS, 1, PER_THREAD * threads) : 1;
}

// What a thread that makes bands has for itself.
struct BandMaker {
  integer::IntegerSynthesis synthesis;
  integer::PaddedRow middle;
};

// Upsampling and synthesis in one, row by row. noise: planes behind those of the latents, or none. Threads share out
// bands of rows; the pool is of this call alone, for another frame may be made at the same time.
Shorts dense(const std::vector<Ints>& latents, const std::vector<Filter>& up, const std::vector<Filter>& pre, int bits,
             const std::optional<Shorts>& noise, const std::vector<Conv>& layers, const std::optional<Linear>& stabiliser,
             int threads) {
  expect(threads > 0, "at least one thread");
  const Latents from = latents_of(latents);
  auto kernel = upsampling_of(latents.size(), up, pre, bits);
  const int height = from.sizes[0].first, width = from.sizes[0].second, n_planes = static_cast<int>(latents.size());
  if (noise) expect(noise->ndim() == 3 && noise->shape(1) == height && noise->shape(2) == width, "noise [n, H, W]");
  const int n_in = n_planes + (noise ? static_cast<int>(noise->shape(0)) : 0);
  const SynthesisModel model = synthesis_model(n_in, layers, stabiliser);
  Shorts out = recycled<int16_t>({model.n_out(), height, width});
  const int16_t* other = noise ? noise->data() : nullptr;
  int16_t* to = out.mutable_data();
  py::gil_scoped_release release;
  kernel.set(from.values, from.sizes);
  const int bands = bands_for(height, threads);
  coolvid::Pool pool(std::min(threads, bands));
  std::vector<BandMaker> makers;
  for (int i = 0; i < pool.threads(); i++) makers.push_back({{model.layers, model.stabiliser, n_in, height, width}, kernel.scratch()});
  auto row_of = [=](int64_t i) { return static_cast<int>(i * height / bands); };
  pool.run(bands, [&](int i, int thread) {
    BandMaker& maker = makers[thread];
    auto source = [&](int p, int y, int16_t* row) {
      if (p < n_planes)
        kernel.row(p, y, maker.middle, row);
      else
        std::copy_n(other + (static_cast<size_t>(p - n_planes) * height + y) * width, width, row);
    };
    const int band = bands - 1 - i;  // from the bottom up: no band may count on rows that its maker kept of the one above
    maker.synthesis.run(source, to, row_of(band), row_of(band + 1));
  });
  return out;
}

void expect_taps(const Ints& taps) {
  expect(taps.ndim() == 2 && taps.shape(0) == 64 && taps.shape(1) % 2 == 0 && taps.shape(1) >= 2 &&
             taps.shape(1) <= integer::IntegerWarp::MAX_TAPS, "taps [64, n]");
  for (py::ssize_t i = 0; i < taps.size(); i++) expect(std::abs(taps.data()[i]) <= 1 << 14, "a tap is beyond 2**14");
}

// The flow of a picture of height x width pixels, a vector for each block of 2**log2 x 2**log2.
integer::Vectors vectors_of(const Ints& flow, int log2, py::ssize_t height, py::ssize_t width) {
  expect(log2 >= 0 && log2 < 16, "blocks of 1..2**15 pixels");
  const py::ssize_t size = py::ssize_t{1} << log2;
  expect(flow.ndim() == 3 && flow.shape(0) == 2 && flow.shape(1) == (height + size - 1) / size && flow.shape(2) == (width + size - 1) / size,
         "flow [2, H, W]");
  return {flow.data(), flow.data() + flow.size() / 2, static_cast<int>(flow.shape(2)), log2};
}

// None for a reference beyond int16.
py::object warp(const Ints& reference, const Ints& flow, const Ints& taps) {
  expect(reference.ndim() == 3 && reference.size() > 0, "reference [C, H, W]");
  expect_taps(taps);
  const int channels = static_cast<int>(reference.shape(0)), height = static_cast<int>(reference.shape(1)),
            width = static_cast<int>(reference.shape(2));
  const integer::Vectors vectors = vectors_of(flow, 0, height, width);
  const int32_t* from = reference.data();
  if (!std::all_of(from, from + reference.size(), [](int32_t v) { return v == static_cast<int16_t>(v); })) return py::none();
  Shorts out = recycled<int16_t>({channels, height, width});
  int16_t* to = out.mutable_data();
  const size_t plane = static_cast<size_t>(height) * width;
  {
    py::gil_scoped_release release;
    integer::IntegerWarp kernel(height, width, taps.data(), static_cast<int>(taps.shape(1)));
    for (int c = 0; c < channels; c += kernel.GROUP) {
      const int some = std::min(kernel.GROUP, channels - c);
      kernel.set(some, [&](int i, int y, int32_t* line) { std::copy_n(from + (c + i) * plane + static_cast<size_t>(y) * width, width, line); });
      kernel.run(vectors, some, to + c * plane);
    }
  }
  return out;
}

integer::MovedFrame moved_frame(const std::vector<Words>& planes, int dy, int dx) {
  expect(planes.size() == 3 && planes[0].ndim() == 2 && planes[0].size() > 0, "three planes");
  const int height = static_cast<int>(planes[0].shape(0)), width = static_cast<int>(planes[0].shape(1)), far = 1 << 20;
  expect(std::abs(dy) < far && std::abs(dx) < far && height < far && width < far, "a translation or size beyond 2**20");
  integer::MovedFrame frame{{}, {}, {}, height, width, dy, dx};
  for (int c = 0; c < 3; c++) {
    expect(planes[c].ndim() == 2, "planes [h, w]");
    for (int i = 0; i < 2; i++) frame.log2[c] |= planes[c].shape(i) != planes[0].shape(i);
    for (int i = 0; i < 2; i++) expect(planes[c].shape(i) == (planes[0].shape(i) + frame.log2[c]) >> frame.log2[c], "planes of other sizes");
    frame.planes[c] = planes[c].data(), frame.pitch[c] = static_cast<int>(planes[c].shape(1));
  }
  return frame;
}

// warp() of the dense planes of a frame, moved by (dy, dx).
Shorts warp_frame(const std::vector<Words>& planes, int dy, int dx, const Ints& flow, int log2, const Ints& taps) {
  const integer::MovedFrame frame = moved_frame(planes, dy, dx);
  expect_taps(taps);
  const integer::Vectors vectors = vectors_of(flow, log2, frame.height, frame.width);
  Shorts out = recycled<int16_t>({3, frame.height, frame.width});
  int16_t* to = out.mutable_data();
  py::gil_scoped_release release;
  integer::IntegerWarp kernel(frame.height, frame.width, taps.data(), static_cast<int>(taps.shape(1)));
  kernel.set(3, [&](int c, int y, int32_t* line) { frame.row(c, y, line); });
  kernel.run(vectors, 3, to);
  return out;
}

struct Planes {
  explicit Planes(const integer::PictureShape& shape) {
    for (int c = 0; c < 3; c++) {
      const int half = shape.subsampled && c > 0;
      planes.push_back(recycled<uint16_t>({(shape.height + half) >> half, (shape.width + half) >> half}));
      to[c] = planes.back().mutable_data();
    }
  }
  py::tuple made() const { return py::make_tuple(planes[0], planes[1], planes[2]); }
  std::vector<Words> planes;
  uint16_t* to[3];
};

py::tuple compose(const Shorts& raw, int bits, const std::vector<std::pair<int, int>>& ranges, const std::vector<Shorts>& predictions,
                  int peak, bool subsampled) {
  expect(raw.ndim() == 3 && raw.shape(0) == 3 + static_cast<py::ssize_t>(predictions.size()) && predictions.size() <= 2, "raw [3 + predictions, H, W]");
  expect(bits >= 0 && bits <= 15 && ranges.size() == 3 && peak > 0 && peak < 1024, "bits, ranges or peak");
  integer::ResidueScale scale{bits, {}, {}};
  for (int c = 0; c < 3; c++) scale.low[c] = ranges[c].first, scale.high[c] = ranges[c].second;
  for (auto [low, high] : ranges) expect(low >= 0 && low < 1024 && high >= 0 && high < 1024, "a range beyond 0..1023");
  std::vector<const int16_t*> from;
  for (auto& each : predictions) {
    expect(each.ndim() == 3 && each.shape(0) == 3 && each.shape(1) == raw.shape(1) && each.shape(2) == raw.shape(2), "predictions [3, H, W]");
    from.push_back(each.data());
  }
  const integer::PictureShape shape{static_cast<int>(raw.shape(1)), static_cast<int>(raw.shape(2)), peak, subsampled};
  Planes out(shape);
  {
    py::gil_scoped_release release;
    integer::Compose(shape, scale, raw.data(), from, out.to).run();
  }
  return out.made();
}

// The mean of one or two frames' planes, each moved by its (dy, dx).
py::tuple mean(const std::vector<std::vector<Words>>& references, const std::vector<std::pair<int, int>>& shifts, int peak, bool subsampled) {
  expect((references.size() == 1 || references.size() == 2) && shifts.size() == references.size() && peak > 0 && peak < 1024,
         "one or two references with a shift each");
  std::vector<integer::MovedFrame> frames;
  for (size_t i = 0; i < references.size(); i++) frames.push_back(moved_frame(references[i], shifts[i].first, shifts[i].second));
  const integer::PictureShape shape{frames[0].height, frames[0].width, peak, subsampled};
  expect(frames.back().height == shape.height && frames.back().width == shape.width, "references of one size");
  Planes out(shape);
  {
    py::gil_scoped_release release;
    integer::mean_of(frames, shape, out.to);
  }
  return out.made();
}

// Planes times 2**-shift, rounded, int32.
Ints rounded(const Shorts& planes, int shift) {
  expect(shift >= -15 && shift <= 31, "a shift beyond -15..31");
  Ints out(std::vector<py::ssize_t>(planes.shape(), planes.shape() + planes.ndim()));
  std::transform(planes.data(), planes.data() + planes.size(), out.mutable_data(), [=](int16_t v) { return integer::rounded(v, shift); });
  return out;
}

}  // namespace

void bind_pictures(py::module_& m) {
  m.def("synthesis", &synthesis, py::arg("planes"), py::arg("layers"), py::arg("stabiliser"));
  m.def("upsampling", &upsampling, py::arg("latents"), py::arg("up"), py::arg("pre"), py::arg("bits"));
  m.def("dense", &dense, py::arg("latents"), py::arg("up"), py::arg("pre"), py::arg("bits"), py::arg("noise"), py::arg("layers"),
        py::arg("stabiliser"), py::arg("threads") = 1);
  m.def("warp", &warp, py::arg("reference"), py::arg("flow"), py::arg("taps"));
  m.def("warp_frame", &warp_frame, py::arg("planes"), py::arg("dy"), py::arg("dx"), py::arg("flow"), py::arg("log2"), py::arg("taps"));
  m.def("compose", &compose, py::arg("raw"), py::arg("bits"), py::arg("ranges"), py::arg("predictions"), py::arg("peak"),
        py::arg("subsampled"));
  m.def("mean", &mean, py::arg("references"), py::arg("shifts"), py::arg("peak"), py::arg("subsampled"));
  m.def("rounded", &rounded, py::arg("planes"), py::arg("shift"));
}
