// What the Python faces of the decoding kernels share: arrays, and layers as the callers hand them in.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "decode_simd.h"

namespace py = pybind11;
namespace integer = coolvid::integer;
using coolvid::integer::IntegerLayer;
using Ints = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Shorts = py::array_t<int16_t, py::array::c_style | py::array::forcecast>;
using Words = py::array_t<uint16_t, py::array::c_style | py::array::forcecast>;
using Linear = std::tuple<Ints, Ints, int>;      // weights [n_out, n_in, ...], bias [n_out], shift
using Conv = std::tuple<Ints, Ints, int, bool>;  // the same and relu
using Filter = std::pair<Ints, int>;             // taps, shift

inline void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

// A layer whose pair p multiplies the inputs order[p] (-1: none) of weights [n_out][n_in].
inline IntegerLayer layer(const Ints& weights, const Ints& bias, int shift, const std::vector<std::pair<int, int>>& order) {
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
inline void pair_up(std::vector<std::pair<int, int>>& order, int first, int n, int step = 1, int at = 0) {
  for (int i = 0; i < n; i += 2)
    order.push_back({(first + i) * step + at, i + 1 < n ? (first + i + 1) * step + at : -1});
}
