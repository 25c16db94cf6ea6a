// The Python face of the decoding kernels: functions without state, on the thread of the caller (dense() takes more where
// it is told to), with the GIL released.
// Callers hand in integer forms as lists of (weights, bias, shift); what they compute is defined in plain numpy.
#include "decode_arrays.h"
#include "decode_crc.h"
#include "decode_latents.h"
#include "decode_parameters.h"

using Chances = py::array_t<uint16_t, py::array::c_style | py::array::forcecast>;

void bind_pictures(py::module_& m);  // decode_pictures.cpp

namespace {

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
             shifts.size() == integer::LaplaceRows::COUNT, "not the Laplace tables");
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
  m.def("parameters", &decode_parameters, py::arg("data"), py::arg("at"), py::arg("value"), py::arg("range"), py::arg("blocks"),
        py::arg("predictor"), py::arg("start"));
  m.def("parameter_cost", &parameter_cost, py::arg("values"), py::arg("blocks"), py::arg("predictor"), py::arg("start"),
        py::arg("costs"));
  m.def("crc32c", &crc32c, py::arg("data"));
  bind_pictures(m);
}
