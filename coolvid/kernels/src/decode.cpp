// The Python face of the decoding kernels: functions without state, each alone on its thread with the GIL released.
// Callers hand in integer forms as lists of (weights, bias, shift); what they compute is defined in plain numpy.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "decode_crc.h"
#include "decode_frame.h"
#include "decode_latents.h"
#include "decode_parameters.h"
#include "decode_synthesis.h"
#include "decode_upsampling.h"
#include "decode_warp.h"

namespace py = pybind11;
namespace integer = coolvid::integer;
using Ints = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Chances = py::array_t<uint16_t, py::array::c_style | py::array::forcecast>;
using Words = py::array_t<uint16_t, py::array::c_style | py::array::forcecast>;
using Linear = std::tuple<Ints, Ints, int>;        // weights [n_out, n_in, ...], bias [n_out], shift
using Conv = std::tuple<Ints, Ints, int, bool>;    // the same and relu
using Filter = std::pair<Ints, int>;               // taps, shift
using coolvid::integer::IntegerLayer;

namespace {

void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

// A layer whose pair p multiplies the inputs order[p] (-1: none) of weights [n_out][n_in].
IntegerLayer layer(const Ints& weights, const Ints& bias, int shift, const std::vector<std::pair<int, int>>& order) {
  expect(weights.ndim() >= 2 && bias.size() == weights.shape(0) && bias.size() > 0, "weights [n_out, n_in], bias [n_out]");
  IntegerLayer out;
  out.n_out = static_cast<int>(weights.shape(0)), out.n_in = static_cast<int>(weights.size() / weights.shape(0));
  out.shift = shift;
  out.bias.assign(bias.data(), bias.data() + out.n_out);
  for (py::ssize_t i = 0; i < weights.size(); i++)
    expect(weights.data()[i] == static_cast<int16_t>(weights.data()[i]), "a weight is beyond int16");
  for (auto [low, high] : order)
    for (int m = 0; m < out.n_out; m++) {
      expect(low < out.n_in && high < out.n_in, "wrong number of inputs");
      const int32_t* row = weights.data() + static_cast<size_t>(m) * out.n_in;
      out.weights.push_back(integer::paired(row[low], high < 0 ? 0 : row[high]));
    }
  return out;
}

// Pairs of inputs first .. first + n - 1, each with `step` values of which this is number `at`.
void pair_up(std::vector<std::pair<int, int>>& order, int first, int n, int step = 1, int at = 0) {
  for (int i = 0; i < n; i += 2)
    order.push_back({(first + i) * step + at, i + 1 < n ? (first + i + 1) * step + at : -1});
}

IntegerLayer conv(const Ints& weights, const Ints& bias, int shift) {
  expect(weights.ndim() == 4 && weights.shape(2) == weights.shape(3), "weights [n_out, n_in, k, k]");
  const int taps = static_cast<int>(weights.shape(2) * weights.shape(3)), n_in = static_cast<int>(weights.shape(1));
  std::vector<std::pair<int, int>> order;
  for (int first = 0; first < n_in; first += 2)
    for (int at = 0; at < taps; at++) pair_up(order, first, std::min(2, n_in - first), taps, at);
  return layer(weights, bias, shift, order);
}

integer::ArmModel arm_model(const std::vector<std::pair<int, int>>& neighbours, int n_features, int delay,
                            const std::vector<Linear>& hidden, const Linear& output, const std::optional<Linear>& side) {
  integer::ArmModel model;
  model.n_features = n_features, model.delay = delay;
  for (auto [dy, dx] : neighbours) {
    int lag = -(dx + delay * dy);
    expect(dy >= -4 && dy <= 0 && dx >= -4 && dx <= 4 && lag > 0 && lag < 32, "not a causal neighbour");
    model.dy.push_back(dy), model.dx.push_back(dx);
  }
  const int spatial = static_cast<int>(neighbours.size()), width = spatial + n_features;
  expect(spatial > 0 && n_features >= 0 && delay > 0, "no contexts");
  std::vector<std::pair<int, int>> contexts, inner;
  pair_up(contexts, 0, spatial), pair_up(contexts, spatial, n_features), pair_up(inner, 0, width);
  for (auto& [weights, bias, shift] : hidden) {
    model.hidden.push_back(layer(weights, bias, shift, model.hidden.empty() ? contexts : inner));
    expect(model.hidden.back().n_in == width && model.hidden.back().n_out == width, "a hidden layer of another width");
  }
  auto last = [&](const Linear& given, const auto& order) {
    IntegerLayer out = layer(std::get<0>(given), std::get<1>(given), std::get<2>(given), order);
    expect(out.n_in == width && out.n_out == 2 && out.shift >= -31, "not a last layer");
    return out;
  };
  model.output = last(output, hidden.empty() ? contexts : inner);
  if (side) model.stabiliser = last(*side, contexts);
  return model;
}

using GridOf = std::tuple<int, int, int, bool, std::optional<Linear>>;  // height, width, log2, present, map

// (fault, value at fault or 0, latents): fault 0 none, 1 latent out of range, 2 no escape code, 3 wrong end.
py::tuple decode_latents(const std::vector<py::bytes>& parts, const Words& starts, const Ints& shifts,
                         const std::vector<std::pair<int, int>>& neighbours, int n_features, int delay,
                         const std::vector<Linear>& hidden, const Linear& output, const std::optional<Linear>& stabiliser,
                         const std::vector<GridOf>& grids) {
  const integer::ArmModel model = arm_model(neighbours, n_features, delay, hidden, output, stabiliser);
  expect(starts.ndim() == 2 && starts.shape(1) == integer::Rans::SYMBOLS && shifts.size() == starts.shape(0) &&
             shifts.size() == 81 * 16, "not the Laplace tables");
  expect(parts.size() == 1 || parts.size() == 2 || parts.size() == 4 || parts.size() == 8, "1, 2, 4 or 8 sub-streams");
  std::vector<integer::Rans> coders;
  for (auto& part : parts) {
    std::string_view view = part;
    coders.emplace_back(reinterpret_cast<const uint8_t*>(view.data()), view.size());
  }
  std::vector<Ints> latents;
  std::vector<integer::DecodedGrid> shapes;
  for (size_t i = 0; i < grids.size(); i++) {
    auto& [height, width, log2, present, map] = grids[i];
    expect(height > 0 && width > 0 && log2 >= 0 && log2 < 16, "an empty grid");
    latents.push_back(Ints({height, width}));
    shapes.push_back({height, width, log2, present, {}, latents.back().mutable_data()});
    std::fill_n(shapes.back().out, latents.back().size(), 0);
    if (!map) continue;
    auto& [weights, bias, shift] = *map;
    int n_coarser = 0;
    for (auto& other : grids) {
      if (std::get<2>(other) <= log2) continue;
      int step = std::get<2>(other) - log2 - 1;
      expect(((height + 1) / 2 - 1) >> step < std::get<0>(other) && ((width + 1) / 2 - 1) >> step < std::get<1>(other), "grids do not nest");
      n_coarser++;
    }
    expect(weights.ndim() == 2 && weights.shape(0) == n_features && bias.size() == n_features &&
               weights.shape(1) == std::max(n_coarser, 1), "an IFCE map of another shape");
    IntegerLayer& to = shapes.back().map;
    to.n_out = n_features, to.n_in = static_cast<int>(weights.shape(1)), to.shift = shift;
    to.bias.assign(bias.data(), bias.data() + n_features);
    for (int k = 0; k < to.n_in; k++)
      for (int m = 0; m < n_features; m++) to.weights.push_back(weights.at(m, k));
  }
  const integer::LaplaceRows tables{starts.data(), shifts.data(), static_cast<int>(shifts.size())};
  integer::Fault fault = integer::Fault::none;
  int64_t culprit = 0;
  {
    py::gil_scoped_release release;
    integer::LatentDecoder decoder(model, tables, coders);
    if (!decoder.run(shapes))
      fault = decoder.guilty->fault(), culprit = decoder.guilty->culprit();
    else
      for (auto& coder : coders)
        if (!coder.is_finished()) fault = integer::Fault::end;
  }
  return py::make_tuple(static_cast<int>(fault), culprit, latents);
}

Ints synthesis(const Ints& planes, const std::vector<Conv>& layers, const std::optional<Linear>& stabiliser) {
  expect(planes.ndim() == 3 && planes.size() > 0 && !layers.empty(), "planes [n_in, H, W] and layers");
  std::vector<integer::IntegerConv> convs;
  py::ssize_t channels = planes.shape(0);
  for (auto& [weights, bias, shift, relu] : layers) {
    expect(weights.ndim() == 4 && weights.shape(1) == channels && weights.shape(2) % 2 && weights.shape(2) <= 7, "layers do not fit");
    convs.push_back({conv(weights, bias, shift), static_cast<int>(weights.shape(2)), relu});
    channels = weights.shape(0);
  }
  IntegerLayer side;
  if (stabiliser) {
    auto& [weights, bias, shift] = *stabiliser;
    side = conv(weights, bias, shift);
    expect(side.n_out == channels && side.n_in == weights.shape(1) && side.n_in <= planes.shape(0), "the stabiliser does not fit");
    // A channel of noise that shares a pair with the last one it sees has weight 0.
  }
  Ints out({channels, planes.shape(1), planes.shape(2)});
  const int32_t* from = planes.data();
  int32_t* to = out.mutable_data();
  const int n_in = static_cast<int>(planes.shape(0)), height = static_cast<int>(planes.shape(1)), width = static_cast<int>(planes.shape(2));
  py::gil_scoped_release release;
  integer::IntegerSynthesis(convs, side, n_in, height, width).run(from, to);
  return out;
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

Ints upsampling(const std::vector<Ints>& latents, const std::vector<Filter>& up, const std::vector<Filter>& pre, int bits) {
  expect(!latents.empty() && up.size() + 1 == latents.size() && pre.size() + 1 == latents.size(), "a pair of filters for each step");
  expect(bits >= 0 && bits <= 15, "0..15 fractional bits");
  std::vector<const int32_t*> from;
  std::vector<std::pair<int, int>> sizes;
  for (auto& latent : latents) {
    expect(latent.ndim() == 2 && latent.size() > 0, "latents [h, w]");
    from.push_back(latent.data());
    sizes.push_back({static_cast<int>(latent.shape(0)), static_cast<int>(latent.shape(1))});
    auto [height, width] = sizes.back();
    if (sizes.size() > 1) {
      auto [finer_height, finer_width] = sizes[sizes.size() - 2];
      expect(finer_height <= 2 * height && finer_width <= 2 * width, "a grid is less than half the next finer one");
    }
  }
  integer::IntegerUpsampling kernel(filters(up, false), filters(pre, true), bits);
  Ints out({static_cast<int>(latents.size()), sizes[0].first, sizes[0].second});
  int32_t* to = out.mutable_data();
  py::gil_scoped_release release;
  kernel.run(from, sizes, to);
  return out;
}

void expect_motion(const Ints& flow, const Ints& taps, py::ssize_t height, py::ssize_t width) {
  expect(flow.ndim() == 3 && flow.shape(0) == 2 && flow.shape(1) == height && flow.shape(2) == width, "flow [2, H, W]");
  expect(taps.ndim() == 2 && taps.shape(0) == 64 && taps.shape(1) % 2 == 0 && taps.shape(1) >= 2 &&
             taps.shape(1) <= integer::IntegerWarp::MAX_TAPS, "taps [64, n]");
}

// None for a reference beyond int16.
py::object warp(const Ints& reference, const Ints& flow, const Ints& taps) {
  expect(reference.ndim() == 3 && reference.size() > 0, "reference [C, H, W]");
  expect_motion(flow, taps, reference.shape(1), reference.shape(2));
  const int channels = static_cast<int>(reference.shape(0)), height = static_cast<int>(reference.shape(1)),
            width = static_cast<int>(reference.shape(2));
  Ints out({reference.shape(0), reference.shape(1), reference.shape(2)});
  int32_t* to = out.mutable_data();
  const int32_t *from = reference.data(), *vectors = flow.data();
  const size_t plane = static_cast<size_t>(height) * width;
  bool fits = true;
  {
    py::gil_scoped_release release;
    integer::IntegerWarp kernel(height, width, taps.data(), static_cast<int>(taps.shape(1)));
    for (int c = 0; c < channels && fits; c += kernel.GROUP) {
      int some = std::min(kernel.GROUP, channels - c);
      fits = kernel.set(some, [&](int i, int y, int32_t* line) { std::copy_n(from + (c + i) * plane + static_cast<size_t>(y) * width, width, line); });
      if (fits) kernel.run(vectors, some, to + c * plane);
    }
  }
  return fits ? py::object(out) : py::object(py::none());
}

// How often a plane repeats in both directions (as log2) to be as large as the first.
std::array<int, 3> repetitions(const std::vector<Words>& planes) {
  expect(planes.size() == 3 && planes[0].ndim() == 2 && planes[0].size() > 0, "three planes");
  std::array<int, 3> log2{};
  for (int c = 0; c < 3; c++) {
    expect(planes[c].ndim() == 2, "planes [h, w]");
    for (int i = 0; i < 2; i++) log2[c] |= planes[c].shape(i) != planes[0].shape(i);
    for (int i = 0; i < 2; i++) expect(planes[c].shape(i) == (planes[0].shape(i) + log2[c]) >> log2[c], "planes of other sizes");
  }
  return log2;
}

// warp() of the dense planes of a frame, moved by (dy, dx).
Ints warp_frame(const std::vector<Words>& planes, int dy, int dx, const Ints& flow, const Ints& taps) {
  const auto log2 = repetitions(planes);
  const int height = static_cast<int>(planes[0].shape(0)), width = static_cast<int>(planes[0].shape(1)), far = 1 << 20;
  expect(std::abs(dy) < far && std::abs(dx) < far && height < far && width < far, "a translation or size beyond 2**20");
  expect_motion(flow, taps, height, width);
  Ints out({3, height, width});
  int32_t* to = out.mutable_data();
  const uint16_t* from[3] = {planes[0].data(), planes[1].data(), planes[2].data()};
  const int pitch[3] = {width, static_cast<int>(planes[1].shape(1)), static_cast<int>(planes[2].shape(1))};
  const int32_t* vectors = flow.data();
  py::gil_scoped_release release;
  integer::IntegerWarp kernel(height, width, taps.data(), static_cast<int>(taps.shape(1)));
  kernel.set(3, [&](int c, int y, int32_t* line) {
    int row = std::clamp(y + dy, 0, height - 1) >> log2[c];
    integer::moved_row(from[c] + static_cast<size_t>(row) * pitch[c], log2[c], width, dx, line);
  });
  kernel.run(vectors, 3, to);
  return out;
}

py::tuple compose(const Ints& raw, int bits, const std::vector<std::pair<int, int>>& ranges, const std::vector<Ints>& predictions,
                  int peak, bool subsampled) {
  expect(raw.ndim() == 3 && raw.shape(0) == 3 + static_cast<py::ssize_t>(predictions.size()) && predictions.size() <= 2, "raw [3 + predictions, H, W]");
  expect(bits >= 0 && bits <= 15 && ranges.size() == 3 && peak > 0 && peak < 1024, "bits, ranges or peak");
  const py::ssize_t height = raw.shape(1), width = raw.shape(2);
  integer::ComposeShape shape{static_cast<int>(height), static_cast<int>(width), bits, {}, {}, peak, subsampled};
  for (int c = 0; c < 3; c++) shape.low[c] = ranges[c].first, shape.high[c] = ranges[c].second;
  for (auto [low, high] : ranges) expect(low >= 0 && low < 1024 && high >= 0 && high < 1024, "a range beyond 0..1023");
  std::vector<const int32_t*> from;
  for (auto& each : predictions) {
    expect(each.ndim() == 3 && each.shape(0) == 3 && each.shape(1) == height && each.shape(2) == width, "predictions [3, H, W]");
    from.push_back(each.data());
  }
  std::vector<Words> planes;
  uint16_t* to[3];
  for (int c = 0; c < 3; c++) {
    bool half = subsampled && c > 0;
    planes.push_back(Words({half ? (height + 1) / 2 : height, half ? (width + 1) / 2 : width}));
    to[c] = planes.back().mutable_data();
  }
  {
    py::gil_scoped_release release;
    integer::Compose(shape, raw.data(), from, to).run();
  }
  return py::make_tuple(planes[0], planes[1], planes[2]);
}

Ints repeat(const Ints& planes, int log2, int shift, int height, int width) {
  expect(planes.ndim() == 3 && planes.size() > 0 && height > 0 && width > 0 && log2 >= 0 && log2 < 16, "planes [n, h, w]");
  expect(height <= planes.shape(1) << log2 && width <= planes.shape(2) << log2, "more than the repeated planes hold");
  expect(shift >= -15 && shift <= 31, "a shift beyond -15..31");
  Ints out({planes.shape(0), static_cast<py::ssize_t>(height), static_cast<py::ssize_t>(width)});
  int32_t* to = out.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < planes.shape(0); i++)
    integer::repeat(planes.data() + i * planes.shape(1) * planes.shape(2), static_cast<int>(planes.shape(2)), log2, shift, height,
                    width, to + i * height * width);
  return out;
}

// Rows of (start, rows, columns, taps, feeder, above); one tensor follows the other, and names only earlier ones.
std::vector<integer::ParameterBlock> parameter_blocks(const Ints& table) {
  expect(table.ndim() == 2 && table.shape(1) == 6, "blocks [n, 6]");
  std::vector<integer::ParameterBlock> out;
  int64_t end = 0;
  for (int32_t i = 0; i < table.shape(0); i++) {
    const int32_t* row = table.data(i, 0);
    integer::ParameterBlock block{row[0], row[1], row[2], row[3], row[4], row[5]};
    expect(block.start == end && block.rows >= 0 && block.columns >= 0 && block.taps > 0 && block.columns % block.taps == 0, "a block");
    expect(block.feeder >= -1 && block.feeder < i && block.above >= -1 && block.above < i, "a block names a later one");
    if (block.feeder >= 0) expect(out[block.feeder].rows == block.columns / block.taps, "the feeder of a block does not fit");
    if (block.above >= 0) expect(out[block.above].columns >= block.columns, "what is above a block does not fit");
    end += static_cast<int64_t>(block.rows) * block.columns;
    expect(end < INT32_MAX, "too many parameters");
    out.push_back(block);
  }
  return out;
}

int64_t parameter_count(const std::vector<integer::ParameterBlock>& blocks) {
  return blocks.empty() ? 0 : blocks.back().start + static_cast<int64_t>(blocks.back().rows) * blocks.back().columns;
}

const int32_t* predictor_values(const std::optional<Ints>& predictor, int64_t n, const Chances& start) {
  expect(start.size() == integer::ParameterCoder<integer::BinaryTally>::N_CONTEXTS, "the starting chances");
  if (!predictor) return nullptr;
  expect(predictor->size() == n, "as many predicted values as parameters");
  return predictor->data();
}

// (fault: 0 none, 1 data end too early, 2 a value is out of range; the coder's at, value and range behind; values).
py::tuple decode_parameters(const py::bytes& data, size_t at, uint32_t value, uint32_t range, const Ints& table,
                            const std::optional<Ints>& predictor, const Chances& start) {
  std::string_view view = data;
  expect(range >= 1u << 24 && at >= 4, "the state of the coder");
  const auto blocks = parameter_blocks(table);
  Ints values(static_cast<py::ssize_t>(parameter_count(blocks)));
  std::fill_n(values.mutable_data(), values.size(), 0);
  integer::BinaryDecoder coder{reinterpret_cast<const uint8_t*>(view.data()), view.size(), at, value, range};
  const int32_t* from = predictor_values(predictor, values.size(), start);
  int32_t* to = values.mutable_data();
  integer::ParameterFault fault;
  {
    py::gil_scoped_release release;
    fault = integer::ParameterCoder(coder, start.data(), blocks, to, from).run();
  }
  return py::make_tuple(static_cast<int>(fault), coder.at, coder.value, coder.range, values);
}

// What coding the values costs, in the unit of `costs` [4096].
int64_t parameter_cost(const Ints& values, const Ints& table, const std::optional<Ints>& predictor, const Chances& start, const Ints& costs) {
  const auto blocks = parameter_blocks(table);
  expect(values.size() == parameter_count(blocks) && costs.size() == 4096, "values of the blocks, 4096 costs");
  std::vector<int32_t> own(values.data(), values.data() + values.size());
  integer::BinaryTally tally{costs.data()};
  integer::ParameterCoder(tally, start.data(), blocks, own.data(), predictor_values(predictor, values.size(), start)).run();
  return tally.cost;
}

uint32_t crc32c(const py::bytes& data) {
  std::string_view view = data;
  return integer::Crc32c::of(reinterpret_cast<const uint8_t*>(view.data()), view.size());
}

}  // namespace

// compiled.decode: exact twins of plain numpy functions.
void bind_decode(py::module_& parent) {
  py::module_ m = parent.def_submodule("decode", "Integer kernels of decoding.");
  m.def("latents", &decode_latents, py::arg("parts"), py::arg("starts"), py::arg("shifts"), py::arg("neighbours"),
        py::arg("n_features"), py::arg("delay"), py::arg("hidden"), py::arg("output"), py::arg("stabiliser"), py::arg("grids"));
  m.def("synthesis", &synthesis, py::arg("planes"), py::arg("layers"), py::arg("stabiliser"));
  m.def("upsampling", &upsampling, py::arg("latents"), py::arg("up"), py::arg("pre"), py::arg("bits"));
  m.def("warp", &warp, py::arg("reference"), py::arg("flow"), py::arg("taps"));
  m.def("warp_frame", &warp_frame, py::arg("planes"), py::arg("dy"), py::arg("dx"), py::arg("flow"), py::arg("taps"));
  m.def("compose", &compose, py::arg("raw"), py::arg("bits"), py::arg("ranges"), py::arg("predictions"), py::arg("peak"),
        py::arg("subsampled"));
  m.def("repeat", &repeat, py::arg("planes"), py::arg("log2"), py::arg("shift"), py::arg("height"), py::arg("width"));
  m.def("parameters", &decode_parameters, py::arg("data"), py::arg("at"), py::arg("value"), py::arg("range"), py::arg("blocks"),
        py::arg("predictor"), py::arg("start"));
  m.def("parameter_cost", &parameter_cost, py::arg("values"), py::arg("blocks"), py::arg("predictor"), py::arg("start"),
        py::arg("costs"));
  m.def("crc32c", &crc32c, py::arg("data"));
}
