// The Python face of the kernels: numpy arrays in, numpy arrays out, the GIL released while they work.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "arm.h"
#include "cells.h"
#include "compose.h"
#include "encode_rans.h"
#include "latents.h"
#include "network_rate.h"
#include "soap.h"
#include "synthesis.h"
#include "upsampling.h"
#include "warp.h"

namespace py = pybind11;
void bind_decode(py::module_& m);  // decode.cpp
using Floats = py::array_t<float, py::array::c_style>;
using Counts = py::array_t<uint32_t, py::array::c_style>;

#ifndef COOLVID_MODULE
#define COOLVID_MODULE _portable
#endif

namespace {

void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

bool cpu_supports(const std::string& set) {
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(__clang__)  // older ones do not know the names of the levels
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  const bool v3 = __builtin_cpu_supports("x86-64-v3"), v4 = __builtin_cpu_supports("x86-64-v4");
#endif
  if (set == "v3") return v3;
  if (set == "v4") return v4;
#endif
  return set == "portable";
}

// Where a result goes: into the array given, else into a new one.
Floats given_or_new(const std::optional<Floats>& given, std::vector<py::ssize_t> shape) {
  if (!given) return Floats(shape);
  py::ssize_t size = 1;
  for (auto n : shape) size *= n;
  expect(given->size() == size, "an array to write to has another size");
  return *given;
}

std::vector<float*> mutable_pointers(std::vector<Floats>& arrays) {
  std::vector<float*> out;
  for (auto& a : arrays) out.push_back(a.mutable_data());
  return out;
}

// The start of each grid in the flat array of all latents.
template <class T>
std::vector<T*> grid_starts(T* flat, const std::vector<coolvid::GridShape>& grids) {
  std::vector<T*> out;
  for (auto& g : grids) out.push_back(flat), flat += static_cast<py::ssize_t>(g.height) * g.width;
  return out;
}

using ArmSlopes = std::tuple<Floats, Floats, Floats>;

py::tuple arm_run(coolvid::ArmRate& self, const Floats& latents, const Floats& arm, const Floats& ifce, bool gradients,
                  bool want_bits, const std::optional<Floats>& weights, float scale, const std::optional<ArmSlopes>& out) {
  py::ssize_t n = 0;
  for (auto& g : self.grids()) n += static_cast<py::ssize_t>(g.height) * g.width;
  expect(latents.size() == n && (!weights || weights->size() == n), "one value for each latent");
  expect(arm.size() == self.parameters() && ifce.size() == self.map_parameters(), "wrong number of parameters");
  auto slopes = out ? *out : ArmSlopes{Floats(gradients ? n : 0), Floats(self.parameters()), Floats(self.map_parameters())};
  auto& [d_latents, d_arm, d_ifce] = slopes;
  expect(!gradients || (d_latents.size() == n && d_arm.size() == self.parameters() && d_ifce.size() == self.map_parameters()),
         "an array to write to has another size");
  std::vector<double> rates(self.grids().size());
  Floats bits(want_bits ? n : 0);
  std::vector<const float*> weight_starts;
  if (weights) weight_starts = grid_starts(weights->data(), self.grids());
  std::vector<float*> slope_starts, bit_starts;
  if (gradients) slope_starts = grid_starts(d_latents.mutable_data(), self.grids());
  if (want_bits) bit_starts = grid_starts(bits.mutable_data(), self.grids());
  auto in = grid_starts(latents.data(), self.grids());
  float *to_arm = d_arm.mutable_data(), *to_ifce = d_ifce.mutable_data();
  {
    py::gil_scoped_release release;
    self.run(in, arm.data(), ifce.data(), rates.data(), gradients, slope_starts, to_arm, to_ifce, bit_starts,
             weight_starts, scale);
  }
  return py::make_tuple(rates, d_latents, d_arm, d_ifce, bits);
}

Floats synthesis_forward(coolvid::Synthesis& self, const Floats& z, const Floats& parameters, const std::optional<Floats>& given) {
  expect(z.ndim() == 3 && z.shape(0) == self.n_in() && z.size() == static_cast<py::ssize_t>(self.n_in() * self.pixels()),
         "planes differ from the synthesis");
  expect(parameters.size() == self.parameters(), "wrong number of parameters");
  Floats out = given_or_new(given, {self.n_out(), z.shape(1), z.shape(2)});
  float* to = out.mutable_data();
  {
    py::gil_scoped_release release;
    self.forward(z.data(), parameters.data(), to);
  }
  return out;
}

py::tuple synthesis_backward(coolvid::Synthesis& self, const Floats& z, const Floats& parameters, const Floats& d_out,
                             const std::optional<Floats>& given, const std::optional<Floats>& given_parameters) {
  expect(z.size() == static_cast<py::ssize_t>(self.n_in() * self.pixels()), "planes differ from the synthesis");
  expect(d_out.size() == static_cast<py::ssize_t>(self.n_out() * self.pixels()), "gradient differs from the output");
  expect(parameters.size() == self.parameters(), "wrong number of parameters");
  Floats d_z = given_or_new(given, {z.shape(0), z.shape(1), z.shape(2)});
  Floats d_parameters = given_or_new(given_parameters, {self.parameters()});
  float *to_z = d_z.mutable_data(), *to_parameters = d_parameters.mutable_data();
  {
    py::gil_scoped_release release;
    self.backward(z.data(), parameters.data(), d_out.data(), to_z, to_parameters);
  }
  return py::make_tuple(d_z, d_parameters);
}

std::vector<const float*> grid_pointers(const coolvid::Upsampling& self, const std::vector<Floats>& arrays) {
  expect(static_cast<int>(arrays.size()) == self.grids(), "one array for each grid");
  std::vector<const float*> out;
  for (int g = 0; g < self.grids(); g++) {
    auto [h, w] = self.size(g);
    expect(arrays[g].size() == static_cast<py::ssize_t>(h) * w, "array size differs from its grid");
    out.push_back(arrays[g].data());
  }
  return out;
}

void expect_filters(const coolvid::Upsampling& self, const Floats& up, const Floats& pre) {
  int steps = self.grids() - 1;
  expect(up.size() == steps * self.half() && pre.size() == steps * self.pre_half(), "wrong number of taps");
}

Floats upsampling_forward(coolvid::Upsampling& self, const std::vector<Floats>& latents, const Floats& up, const Floats& pre,
                          const std::optional<Floats>& given) {
  auto in = grid_pointers(self, latents);
  expect_filters(self, up, pre);
  auto [h, w] = self.size(0);
  Floats out = given_or_new(given, {self.grids(), h, w});
  float* to = out.mutable_data();
  {
    py::gil_scoped_release release;
    self.forward(in, up.data(), pre.data(), to);
  }
  return out;
}

py::tuple upsampling_backward(coolvid::Upsampling& self, const std::vector<Floats>& latents, const Floats& d_out,
                              const std::optional<std::vector<Floats>>& given, const std::optional<Floats>& given_up,
                              const std::optional<Floats>& given_pre) {
  auto in = grid_pointers(self, latents);
  auto [h, w] = self.size(0);
  expect(d_out.size() == static_cast<py::ssize_t>(self.grids()) * h * w, "gradient differs from the output");
  expect(!given || static_cast<int>(given->size()) == self.grids(), "one array for each grid");
  std::vector<Floats> d_latents;
  for (int g = 0; g < self.grids(); g++)
    d_latents.push_back(given_or_new(given ? std::optional((*given)[g]) : std::nullopt, {self.size(g).first, self.size(g).second}));
  Floats d_up = given_or_new(given_up, {self.grids() - 1, self.half()});
  Floats d_pre = given_or_new(given_pre, {self.grids() - 1, self.pre_half()});
  auto to = mutable_pointers(d_latents);
  float *to_up = d_up.mutable_data(), *to_pre = d_pre.mutable_data();
  {
    py::gil_scoped_release release;
    self.backward(in, d_out.data(), to, to_up, to_pre);
  }
  return py::make_tuple(d_latents, d_up, d_pre);
}

Floats warp_forward(coolvid::Warp& self, const Floats& flow, bool gradients, const std::optional<Floats>& given) {
  expect(flow.size() == static_cast<py::ssize_t>(2) * self.blocks(), "flow differs from the reference");
  Floats out = given_or_new(given, {self.channels(), self.height(), self.width()});
  float* to = out.mutable_data();
  {
    py::gil_scoped_release release;
    self.forward(flow.data(), to, gradients);
  }
  return out;
}

Floats warp_backward(coolvid::Warp& self, const Floats& d_out, const std::optional<Floats>& given) {
  expect(d_out.size() == static_cast<py::ssize_t>(self.channels()) * self.height() * self.width(),
         "gradient differs from the output");
  Floats d_flow = given_or_new(given, {2, self.block_rows(), self.block_columns()});
  float* to = d_flow.mutable_data();
  {
    py::gil_scoped_release release;
    self.backward(d_out.data(), to);
  }
  return d_flow;
}

coolvid::ComposeShape compose_shape(const Floats& raw, const std::vector<Floats>& predictions, const std::vector<float>& gain,
                                    const std::vector<float>& offset, bool subsampled) {
  expect(raw.ndim() == 3 && predictions.size() <= 2 && raw.shape(0) == static_cast<py::ssize_t>(3 + predictions.size()),
         "raw [3 + n, H, W] for n predictions");
  expect(gain.size() == 3 && offset.size() == 3, "gain and offset of three planes");
  coolvid::ComposeShape shape{static_cast<int>(raw.shape(1)), static_cast<int>(raw.shape(2)),
                              static_cast<int>(predictions.size()), subsampled, {}, {}};
  std::copy(gain.begin(), gain.end(), shape.gain), std::copy(offset.begin(), offset.end(), shape.offset);
  for (auto& p : predictions) expect(p.size() == static_cast<py::ssize_t>(3 * shape.pixels()), "predictions [3, H, W]");
  return shape;
}

// The arrays of a picture: three planes for 4:2:0, else one [3, H, W].
std::vector<Floats> composed(const coolvid::ComposeShape& shape) {
  py::ssize_t h = shape.height, w = shape.width;
  std::vector<Floats> out;
  if (!shape.subsampled) out.emplace_back(std::vector<py::ssize_t>{3, h, w});
  for (int c = 0; shape.subsampled && c < 3; c++)
    out.emplace_back(c ? std::vector<py::ssize_t>{(h + 1) / 2, (w + 1) / 2} : std::vector<py::ssize_t>{h, w});
  return out;
}

// Arrays for the derivatives by the predictions, none where these are not wanted.
std::vector<Floats> prediction_slopes(const coolvid::ComposeShape& shape, bool wanted) {
  std::vector<Floats> out;
  for (int i = 0; wanted && i < shape.n_predictions; i++)
    out.emplace_back(std::vector<py::ssize_t>{3, shape.height, shape.width});
  return out;
}

void expect_planes(const coolvid::ComposeShape& shape, const std::vector<Floats>& planes) {
  py::ssize_t h = shape.height, w = shape.width, whole = h * w, half = (h + 1) / 2 * ((w + 1) / 2);
  expect(planes.size() == (shape.subsampled ? 3 : 1), "all planes");
  expect(planes[0].size() == (shape.subsampled ? whole : 3 * whole), "a plane differs from the picture");
  for (size_t c = 1; c < planes.size(); c++) expect(planes[c].size() == half, "a plane differs from the picture");
}

// A pointer to each of the three planes.
template <class T>
std::vector<T*> three(const coolvid::ComposeShape& shape, std::vector<T*> arrays) {
  if (arrays.size() == 1) arrays = {arrays[0], arrays[0] + shape.pixels(), arrays[0] + 2 * shape.pixels()};
  return arrays;
}

std::vector<const float*> const_pointers(const std::vector<Floats>& arrays) {
  std::vector<const float*> out;
  for (auto& a : arrays) out.push_back(a.data());
  return out;
}

std::vector<Floats> compose(const Floats& raw, const std::vector<Floats>& predictions, const std::vector<float>& gain,
                            const std::vector<float>& offset, bool subsampled, int threads) {
  auto shape = compose_shape(raw, predictions, gain, offset, subsampled);
  auto planes = composed(shape);
  auto from = const_pointers(predictions);
  auto to = three(shape, mutable_pointers(planes));
  const float* r = raw.data();
  {
    py::gil_scoped_release release;
    coolvid::Compose(shape, r, std::move(from), coolvid::shared_pool(threads)).forward(to);
  }
  return planes;
}

py::tuple compose_backward(const Floats& raw, const std::vector<Floats>& predictions, const std::vector<float>& gain,
                           bool subsampled, const std::vector<Floats>& d_planes, bool by_prediction, int threads) {
  auto shape = compose_shape(raw, predictions, gain, gain, subsampled);
  expect_planes(shape, d_planes);
  Floats d_raw({raw.shape(0), raw.shape(1), raw.shape(2)});
  auto d_predictions = prediction_slopes(shape, by_prediction);
  auto from = const_pointers(predictions), d = three(shape, const_pointers(d_planes));
  auto to = mutable_pointers(d_predictions);
  const float* r = raw.data();
  float* to_raw = d_raw.mutable_data();
  {
    py::gil_scoped_release release;
    coolvid::Compose(shape, r, std::move(from), coolvid::shared_pool(threads)).backward(d, to_raw, to);
  }
  return py::make_tuple(d_raw, d_predictions);
}

py::tuple compose_error(const Floats& raw, const std::vector<Floats>& predictions, const std::vector<float>& gain,
                        const std::vector<float>& offset, bool subsampled, const std::vector<Floats>& target, float scale,
                        bool by_prediction, int threads, const std::optional<Floats>& given,
                        const std::optional<std::vector<Floats>>& given_predictions) {
  auto shape = compose_shape(raw, predictions, gain, offset, subsampled);
  expect_planes(shape, target);
  Floats d_raw = given_or_new(given, {raw.shape(0), raw.shape(1), raw.shape(2)});
  auto d_predictions = given_predictions ? *given_predictions : prediction_slopes(shape, by_prediction);
  for (auto& d : d_predictions)
    expect(d_predictions.size() == predictions.size() && d.size() == static_cast<py::ssize_t>(3 * shape.pixels()),
           "an array to write to has another size");
  auto from = const_pointers(predictions), t = three(shape, const_pointers(target));
  auto to = mutable_pointers(d_predictions);
  const float* r = raw.data();
  float* to_raw = d_raw.mutable_data();
  double sum;
  {
    py::gil_scoped_release release;
    sum = coolvid::Compose(shape, r, std::move(from), coolvid::shared_pool(threads)).squared_error(t, scale, to_raw, to);
  }
  return py::make_tuple(sum, d_raw, d_predictions);
}

py::tuple squared_error(const Floats& a, const Floats& b, int threads) {
  expect(a.size() == b.size(), "both of one size");
  Floats difference(a.size());
  float* to = difference.mutable_data();
  double sum;
  {
    py::gil_scoped_release release;
    sum = coolvid::squared_error(coolvid::shared_pool(threads), a.data(), b.data(), to, a.size());
  }
  return py::make_tuple(sum, difference);
}

// (start, count, rows, columns, left moment, left basis, right moment, right basis); the last four [count, n, n], or None
// in pairs, changed in place.
using Matrices = std::optional<Floats>;
using SoapBlocks = std::vector<std::tuple<int, int, int, int, Matrices, Matrices, Matrices, Matrices>>;

coolvid::SoapSide soap_side(Matrices& moment, Matrices& basis, py::ssize_t size) {
  expect(moment.has_value() == basis.has_value(), "moments with bases");
  if (!moment) return {nullptr, nullptr};
  expect(moment->size() == size && basis->size() == size, "square matrices of a side [count, n, n]");
  return {moment->mutable_data(), basis->mutable_data()};
}

std::vector<coolvid::SoapBlock> soap_blocks(SoapBlocks& given, py::ssize_t n) {
  std::vector<coolvid::SoapBlock> out;
  for (auto& [start, count, rows, columns, left_moment, left_basis, right_moment, right_basis] : given) {
    expect(start >= 0 && count > 0 && rows > 0 && columns > 0 && start + static_cast<py::ssize_t>(count) * rows * columns <= n,
           "block outside the vector");
    auto left = soap_side(left_moment, left_basis, static_cast<py::ssize_t>(count) * rows * rows);
    auto right = soap_side(right_moment, right_basis, static_cast<py::ssize_t>(count) * columns * columns);
    out.push_back({start, count, rows, columns, left, right});
  }
  return out;
}

// The optimiser, and the arrays that it works on.
struct SharedSoap {
  SoapBlocks blocks;
  Floats first, second;
  py::ssize_t n, reach;  // elements, and the least length of parameters and gradients
  coolvid::Soap soap;

  SharedSoap(SoapBlocks given, const std::vector<int>& order, Floats m, Floats v, const coolvid::SoapSettings& settings)
      : blocks(std::move(given)), first(std::move(m)), second(std::move(v)), n(order.size()),
        reach(n ? *std::max_element(order.begin(), order.end()) + 1 : 0),
        soap(soap_blocks(blocks, n), order, first.mutable_data(), second.mutable_data(), settings) {
    expect(first.size() == n && second.size() == n, "moments of one length");
    expect(std::all_of(order.begin(), order.end(), [](int i) { return i >= 0; }), "places in a vector");
  }

  void step(const Floats& gradients, Floats values, float lr, int steps, bool refresh) {
    expect(gradients.size() >= reach && values.size() >= reach, "one gradient for each parameter");
    soap.step(gradients.data(), values.mutable_data(), lr, steps, refresh);
  }
};

std::unique_ptr<coolvid::NetworkRate> network_rate(std::vector<int> owners, std::vector<double> factors,
                                                   std::vector<float> predicted) {
  int groups = static_cast<int>(factors.size());
  expect(groups % coolvid::NetworkRate::KINDS == 0, "all kinds of each module");
  expect(std::all_of(owners.begin(), owners.end(), [&](int g) { return g >= 0 && g < groups; }), "a group for each owner");
  expect(predicted.empty() || predicted.size() == owners.size(), "one prediction for each parameter");
  return std::make_unique<coolvid::NetworkRate>(std::move(owners), std::move(factors), std::move(predicted));
}

double network_rate_add(coolvid::NetworkRate& self, const Floats& values, Floats slopes, double slope) {
  py::ssize_t n = self.parameters();
  expect(values.size() == n && slopes.size() == n, "one value and slope for each parameter");
  return self.add(values.data(), slopes.mutable_data(), slope);
}

coolvid::Noise noise_kind(const std::string& name) {
  if (name == "none") return coolvid::Noise::none;
  if (name == "gaussian") return coolvid::Noise::gaussian;
  expect(name == "kumaraswamy", "noise is none, gaussian or kumaraswamy");
  return coolvid::Noise::kumaraswamy;
}

py::tuple soft_round(const Floats& x, const std::optional<Floats>& noise, float temperature, int threads, float gain,
                     const std::optional<Floats>& given, const std::optional<Floats>& given_slope) {
  expect(!noise || noise->size() == x.size(), "noise differs from the latents");
  Floats q = given_or_new(given, {x.size()}), dq = given_or_new(given_slope, {x.size()});
  float *to = q.mutable_data(), *to_d = dq.mutable_data();
  const float* e = noise ? noise->data() : nullptr;
  {
    py::gil_scoped_release release;
    coolvid::soft_round_all(coolvid::shared_pool(threads), temperature, gain, x.data(), e, to, to_d, x.size());
  }
  return py::make_tuple(q, dq);
}

void add_and_scale(const Floats& a, const Floats& b, const Floats& slope, Floats out, int threads) {
  expect(b.size() == a.size() && slope.size() == a.size() && out.size() == a.size(), "vectors of one length");
  float* to = out.mutable_data();
  py::gil_scoped_release release;
  coolvid::add_and_scale(coolvid::shared_pool(threads), a.data(), b.data(), slope.data(), to, a.size());
}

void adam(const Floats& gradient, Floats values, Floats first, Floats second, float lr, std::pair<float, float> betas,
          float eps, std::pair<float, float> corrections, int threads) {
  py::ssize_t n = gradient.size();
  expect(values.size() == n && first.size() == n && second.size() == n, "vectors of one length");
  coolvid::AdamStep step{lr, betas.first, betas.second, eps, corrections.first, corrections.second};
  float *x = values.mutable_data(), *m = first.mutable_data(), *v = second.mutable_data();
  py::gil_scoped_release release;
  coolvid::adam(coolvid::shared_pool(threads), step, gradient.data(), x, m, v, n);
}

Floats noise(size_t n, const std::string& kind, float parameter, uint32_t key, int threads, const std::optional<Floats>& given) {
  Floats out = given_or_new(given, {static_cast<py::ssize_t>(n)});
  float* to = out.mutable_data();
  auto k = noise_kind(kind);
  {
    py::gil_scoped_release release;
    coolvid::fill_noise(coolvid::shared_pool(threads), k, parameter, key, to, n);
  }
  return out;
}

using Doubles = py::array_t<double, py::array::c_style>;

// Planes [h, w] with the same content at full or half size; squared errors by cells of side x side pixels of the first.
Doubles cell_errors(const std::vector<Floats>& planes, const std::vector<Floats>& target, int side) {
  expect(!planes.empty() && planes.size() == target.size() && side > 1 && side % 2 == 0, "a target for each plane, even cells");
  auto across = [](py::ssize_t length, int part) { return (length + part - 1) / part; };
  for (auto& p : planes) expect(p.ndim() == 2, "planes [h, w]");
  py::ssize_t rows = across(planes[0].shape(0), side), columns = across(planes[0].shape(1), side);
  Doubles out(rows * columns);
  std::fill_n(out.mutable_data(), out.size(), 0.);
  for (size_t i = 0; i < planes.size(); i++) {
    auto& p = planes[i];
    bool is_full = p.shape(0) == planes[0].shape(0) && p.shape(1) == planes[0].shape(1);
    int own = is_full ? side : side / 2;
    expect(target[i].size() == p.size() && across(p.shape(0), own) == rows && across(p.shape(1), own) == columns,
           "a plane differs from its target or from the cells");
    coolvid::add_cell_errors(p.data(), target[i].data(), static_cast<int>(p.shape(0)), static_cast<int>(p.shape(1)), own,
                             static_cast<int>(columns), out.mutable_data());
  }
  return out;
}

py::bytes rans(const Counts& starts, const Counts& frequencies) {
  py::ssize_t n = starts.size();
  expect(frequencies.size() == n, "one frequency for each start");
  const uint32_t *from = starts.data(), *of = frequencies.data();
  expect(std::all_of(of, of + n, [](uint32_t f) { return f > 0 && f <= 65536; }), "frequencies in 1..65536");
  std::string out;
  {
    py::gil_scoped_release release;
    out = coolvid::rans_bytes(from, of, n);
  }
  return py::bytes(out);
}

}  // namespace

PYBIND11_MODULE(COOLVID_MODULE, m) {
  bind_decode(m);
  m.attr("lanes") = coolvid::VL;
  m.def("cpu_supports", &cpu_supports, py::arg("set"), "Whether this processor offers an instruction set: portable, v3, v4.");
  py::class_<coolvid::ArmRate>(m, "ArmRate", py::module_local())
      .def(py::init([](const std::vector<std::pair<int, int>>& neighbours, int n_features, int n_hidden, bool stabiliser,
                       const std::vector<std::tuple<int, int, int, int>>& grids,
                       const std::vector<std::tuple<int, int, int, std::vector<int>>>& maps, int threads) {
             coolvid::ArmShape shape{static_cast<int>(neighbours.size()), n_features, n_hidden, stabiliser, {}, {}};
             for (auto [dy, dx] : neighbours) shape.dy.push_back(dy), shape.dx.push_back(dx);
             std::vector<coolvid::GridShape> g;
             for (auto [h, w, log2, map] : grids) g.push_back({h, w, log2, map});
             std::vector<coolvid::MapShape> ms;
             for (auto& [h, w, log2, inputs] : maps) ms.push_back({h, w, log2, inputs});
             return std::make_unique<coolvid::ArmRate>(std::move(shape), std::move(g), std::move(ms), threads);
           }),
           py::arg("neighbours"), py::arg("n_features"), py::arg("n_hidden"), py::arg("stabiliser"), py::arg("grids"),
           py::arg("maps"), py::arg("threads"))
      .def("run", &arm_run, py::arg("latents"), py::arg("arm"), py::arg("ifce"), py::arg("gradients"),
           py::arg("bits") = false, py::arg("weights") = py::none(), py::arg("scale") = 1.f,
           py::arg("out").noconvert() = py::none());
  py::class_<coolvid::Synthesis>(m, "Synthesis", py::module_local())
      .def(py::init([](const std::vector<std::tuple<int, int, bool, bool>>& layers, int n_in, int n_seen, bool stabiliser,
                       int height, int width, int threads) {
             std::vector<coolvid::LayerShape> shapes;
             int channels = n_in;
             for (auto [n_out, kernel, residual, relu] : layers) {
               shapes.push_back({channels, n_out, kernel, residual, relu});
               channels = n_out;
             }
             return std::make_unique<coolvid::Synthesis>(std::move(shapes), n_in, n_seen, stabiliser, height, width, threads);
           }),
           py::arg("layers"), py::arg("n_in"), py::arg("n_seen"), py::arg("stabiliser"), py::arg("height"),
           py::arg("width"), py::arg("threads"))
      .def("forward", &synthesis_forward, py::arg("planes"), py::arg("parameters"), py::arg("out").noconvert() = py::none())
      .def("backward", &synthesis_backward, py::arg("planes"), py::arg("parameters"), py::arg("d_out"),
           py::arg("d_planes").noconvert() = py::none(), py::arg("d_parameters").noconvert() = py::none());
  py::class_<coolvid::Upsampling>(m, "Upsampling", py::module_local())
      .def(py::init<std::vector<std::pair<int, int>>, int, int, int>(), py::arg("sizes"), py::arg("k_size"),
           py::arg("preconcat_k_size"), py::arg("threads"))
      .def("forward", &upsampling_forward, py::arg("latents"), py::arg("up"), py::arg("pre"),
           py::arg("out").noconvert() = py::none())
      .def("backward", &upsampling_backward, py::arg("latents"), py::arg("d_out"),
           py::arg("d_latents").noconvert() = py::none(), py::arg("d_up").noconvert() = py::none(),
           py::arg("d_pre").noconvert() = py::none());
  py::class_<coolvid::Warp>(m, "Warp", py::module_local())
      .def(py::init([](const Floats& reference, const Floats& taps, const Floats& slopes, int block, int threads) {
             expect(reference.ndim() == 3 && taps.ndim() == 2 && taps.size() == slopes.size() && taps.shape(0) > 1,
                    "reference [C, H, W], taps and slopes [steps + 1, n]");
             return std::make_unique<coolvid::Warp>(reference.data(), reference.shape(0), reference.shape(1),
                                                    reference.shape(2), taps.data(), slopes.data(), taps.shape(0) - 1,
                                                    taps.shape(1), block, threads);
           }),
           py::arg("reference"), py::arg("taps"), py::arg("slopes"), py::arg("block"), py::arg("threads"))
      .def("forward", &warp_forward, py::arg("flow"), py::arg("gradients"), py::arg("out").noconvert() = py::none())
      .def("backward", &warp_backward, py::arg("d_out"), py::arg("d_flow").noconvert() = py::none());
  m.def("soft_round", &soft_round, py::arg("x"), py::arg("noise"), py::arg("temperature"), py::arg("threads"),
        py::arg("gain") = 1.f, py::arg("out").noconvert() = py::none(), py::arg("slope").noconvert() = py::none());
  m.def("add_and_scale", &add_and_scale, py::arg("a"), py::arg("b"), py::arg("slope"), py::arg("out").noconvert(),
        py::arg("threads"));
  m.def("adam", &adam, py::arg("gradient"), py::arg("values").noconvert(), py::arg("first").noconvert(),
        py::arg("second").noconvert(), py::arg("lr"), py::arg("betas"), py::arg("eps"), py::arg("corrections"),
        py::arg("threads"));
  m.def("noise", &noise, py::arg("n"), py::arg("kind"), py::arg("parameter"), py::arg("key"), py::arg("threads"),
        py::arg("out").noconvert() = py::none());
  m.def("compose", &compose, py::arg("raw"), py::arg("predictions"), py::arg("gain"), py::arg("offset"),
        py::arg("subsampled"), py::arg("threads"));
  m.def("compose_backward", &compose_backward, py::arg("raw"), py::arg("predictions"), py::arg("gain"),
        py::arg("subsampled"), py::arg("d_planes"), py::arg("by_prediction"), py::arg("threads"));
  m.def("compose_error", &compose_error, py::arg("raw"), py::arg("predictions"), py::arg("gain"), py::arg("offset"),
        py::arg("subsampled"), py::arg("target"), py::arg("scale"), py::arg("by_prediction"), py::arg("threads"),
        py::arg("d_raw").noconvert() = py::none(), py::arg("d_predictions").noconvert() = py::none());
  py::class_<coolvid::NetworkRate>(m, "NetworkRate", py::module_local())
      .def(py::init(&network_rate), py::arg("owners"), py::arg("factors"), py::arg("predicted"))
      .def("add", &network_rate_add, py::arg("values"), py::arg("slopes").noconvert(), py::arg("slope"));
  py::class_<SharedSoap>(m, "Soap", py::module_local())
      .def(py::init([](SoapBlocks blocks, const std::vector<int>& order, Floats first, Floats second,
                       std::pair<float, float> betas, float eps, float weight_decay, float max_norm, float open) {
             coolvid::SoapSettings settings{betas.first, betas.second, eps, weight_decay, max_norm, open};
             return std::make_unique<SharedSoap>(std::move(blocks), order, std::move(first), std::move(second), settings);
           }),
           py::arg("blocks").noconvert(), py::arg("order"), py::arg("first").noconvert(), py::arg("second").noconvert(),
           py::arg("betas"), py::arg("eps"), py::arg("weight_decay"), py::arg("max_norm"), py::arg("open"))
      .def("step", &SharedSoap::step, py::arg("gradients"), py::arg("values").noconvert(), py::arg("lr"),
           py::arg("steps"), py::arg("refresh"));
  m.def("cell_errors", &cell_errors, py::arg("planes"), py::arg("target"), py::arg("side"));
  m.def("rans", &rans, py::arg("starts"), py::arg("frequencies"));
  m.def("squared_error", &squared_error, py::arg("a"), py::arg("b"), py::arg("threads"));
}
