// The synthesis in integers (plugins/synthesis/integer.py), row by row through all layers: every layer keeps only the
// rows that the next one reaches, as pairs of channels with replicated columns on both sides.
#pragma once
#include "decode_simd.h"

namespace coolvid::integer {

struct IntegerConv {
  IntegerLayer map;  // pairs: [pair of inputs][dy][dx]
  int kernel;
  bool relu;
  int reach() const { return kernel / 2; }
};

class IntegerSynthesis {
 public:
  static constexpr int GUARD_BITS = 8, GUARD_LIMIT_BITS = 29, EDGE = 4;

  // stabiliser: of the first inputs, empty for none; its shift and, if there is one, the last layer's lead to
  // GUARD_BITS more than the output has.
  IntegerSynthesis(const std::vector<IntegerConv>& layers, const IntegerLayer& stabiliser, int n_in, int height, int width)
      : layers_(layers), stabiliser_(stabiliser), n_in_(n_in), height_(height), width_(width),
        stride_(width + 2 * EDGE + 2 * VL) {
    int total = 0, channels = n_in;
    for (auto& layer : layers) total += layer.reach();
    for (size_t i = 0; i < layers.size(); i++) {
      int rows = 2 * layers[i].reach() + 1;
      levels_.emplace_back((channels + 1) / 2, i ? rows : std::max(rows, total + 1), stride_);
      channels = layers[i].map.n_out;
    }
    lines_.resize(2 * static_cast<size_t>(stride_));
    delay_ = total;
  }

  // Output rows first .. last - 1. source(p, y, to) puts row y of plane p at int16* to, and may write up to two vectors
  // more; the last plane's pair is 0. out: int16 [n_out][height][width].
  template <class Source>
  void run(Source&& source, int16_t* out, int first, int last) {
    for (int t = std::max(0, first - delay_); t < last + delay_; t++) {
      int y = t, above = delay_;  // above: rows beyond `first` that the layers behind this one reach
      if (y < height_) fill(source, y);
      for (size_t i = 0; i < layers_.size(); i++) {
        y -= layers_[i].reach(), above -= layers_[i].reach();
        if (y < std::max(0, first - above) || y >= height_) continue;
        if (i + 1 == layers_.size())
          finish(y, out);
        else
          inner(i, y);
      }
    }
  }

 private:
  struct Level {
    Level(int pairs, int rows, int stride) : pairs(pairs), rows(rows), stride(stride) {
      values.resize(static_cast<size_t>(pairs) * rows * stride);
    }
    int32_t* row(int p, int y) { return values.data() + (static_cast<size_t>(y % rows) * pairs + p) * stride + EDGE; }
    int pairs, rows, stride;
    Buffer<int32_t> values;
  };

  void replicate(Level& level, int y) {
    for (int p = 0; p < level.pairs; p++) {
      int32_t* row = level.row(p, y);
      for (int i = 1; i <= EDGE; i++) row[-i] = row[0], row[width_ - 1 + i] = row[width_ - 1];
    }
  }

  template <class Source>
  void fill(Source& source, int y) {
    Level& level = levels_[0];
    int16_t *low = lines_.data(), *high = low + stride_;
    for (int p = 0; p < level.pairs; p++) {
      source(2 * p, y, low);
      if (2 * p + 1 < n_in_)
        source(2 * p + 1, y, high);
      else
        std::fill_n(high, width_, int16_t{0});
      int32_t* to = level.row(p, y);
      for (int x = 0; x < width_; x += VL) store(to + x, paired(low + x, high + x));
    }
    replicate(level, y);
  }

  // The rows that layer i multiplies for output row y.
  const int32_t* const* inputs(size_t i, int y) {
    Level& level = levels_[i];
    const int reach = layers_[i].reach();
    rows_.clear();
    for (int p = 0; p < level.pairs; p++)
      for (int dy = -reach; dy <= reach; dy++) {
        const int32_t* row = level.row(p, std::clamp(y + dy, 0, height_ - 1));
        for (int dx = -reach; dx <= reach; dx++) rows_.push_back(row + dx);
      }
    return rows_.data();
  }

  template <bool RELU>
  void inner_rows(size_t i, int y) {
    Level& next = levels_[i + 1];
    Narrowing narrowed(layers_[i].map.shift);
    int32_t* to = next.row(0, y);
    madd_product(layers_[i].map, inputs(i, y), width_, [=, this](int m, int x, vi a, vi b) COOLVID_ALWAYS {
      store(to + (m / 2) * stride_ + x, RELU ? narrowed(positive(a), positive(b)) : narrowed(a, b));
    });
    replicate(next, y);
  }
  void inner(size_t i, int y) { layers_[i].relu ? inner_rows<true>(i, y) : inner_rows<false>(i, y); }

  void finish(int y, int16_t* out) {
    if (stabiliser_.exists())
      finish_stabilised(y, out);
    else
      finish_alone(y, out);
  }

  void finish_alone(int y, int16_t* out) {
    const IntegerConv& last = layers_.back();
    Rounding rounding(last.map.shift, 15);
    const int low = last.relu ? 0 : INT32_MIN;
    madd_product(last.map, inputs(layers_.size() - 1, y), width_, [&](int m, int x, vi a, vi b) COOLVID_ALWAYS {
      put(out, m, y, x, rounding(vmax(a, low)), rounding(vmax(b, low)));
    });
  }

  // Last layer and stabiliser, each with GUARD_BITS more than the output, added up.
  void finish_stabilised(int y, int16_t* out) {
    const IntegerConv& last = layers_.back();
    Rounding main(last.map.shift, GUARD_LIMIT_BITS), side(stabiliser_.shift, GUARD_LIMIT_BITS), guard(GUARD_BITS, 15);
    const int low = last.relu ? 0 : INT32_MIN;
    side_.clear();
    for (int p = 0; p < stabiliser_.pairs(); p++) side_.push_back(levels_[0].row(p, y));
    const int pairs = stabiliser_.pairs();
    madd_product(last.map, inputs(layers_.size() - 1, y), width_, [&](int m, int x, vi a, vi b) COOLVID_ALWAYS {
      const int next = std::min(m + 1, stabiliser_.n_out - 1);
      vi c = vi{} + stabiliser_.bias[m], d = vi{} + stabiliser_.bias[next];
      madd_two(stabiliser_, pairs, m, next, side_.data(), x, c, d);
      c = limited(side(c)) + limited(main(vmax(a, low))), d = limited(side(d)) + limited(main(vmax(b, low)));
      put(out, m, y, x, guard(c), guard(d));
    });
  }
  static vi limited(vi v) { return vclamp(v, -(1 << GUARD_LIMIT_BITS), 1 << GUARD_LIMIT_BITS); }
  static vi vmax(vi v, int32_t low) { return v > low ? v : vi{} + low; }

  // Two rows of the output, from x on, limited to int16.
  void put(int16_t* out, int m, int y, int x, vi a, vi b) {
    const size_t plane = static_cast<size_t>(height_) * width_;
    int16_t* to = out + m * plane + static_cast<size_t>(y) * width_ + x;
    const int n = std::min(VL, width_ - x);
    put_row(to, n, a);
    if (m + 1 < layers_.back().map.n_out) put_row(to + plane, n, b);
  }
  static void put_row(int16_t* to, int n, vi v) {
    if (n == VL) return store_saturated(to, v);
    v = saturate16(v);
    for (int i = 0; i < n; i++) to[i] = static_cast<int16_t>(v[i]);
  }

  const std::vector<IntegerConv>& layers_;
  const IntegerLayer& stabiliser_;
  const int n_in_, height_, width_, stride_;
  int delay_;
  std::vector<Level> levels_;
  std::vector<const int32_t*> rows_, side_;
  Buffer<int16_t> lines_;
};

}  // namespace coolvid::integer
