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
    guarded_.resize(static_cast<size_t>(channels) * stride_);
    delay_ = total;
  }

  // planes: int32 [n_in][height][width] within int16; out: int32 [n_out][height][width].
  void run(const int32_t* planes, int32_t* out) {
    for (int t = 0; t < height_ + delay_; t++) {
      int y = t;
      if (y < height_) fill(planes, y);
      for (size_t i = 0; i < layers_.size(); i++) {
        y -= layers_[i].reach();
        if (y < 0 || y >= height_) continue;
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

  void fill(const int32_t* planes, int y) {
    Level& level = levels_[0];
    const size_t plane = static_cast<size_t>(height_) * width_;
    for (int p = 0; p < level.pairs; p++) {
      const int32_t* low = planes + 2 * p * plane + static_cast<size_t>(y) * width_;
      int32_t* to = level.row(p, y);
      if (2 * p + 1 < n_in_)
        for (int x = 0; x < width_; x++) to[x] = paired(low[x], low[plane + x]);
      else
        for (int x = 0; x < width_; x++) to[x] = low[x] & 0xffff;
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
    Rounding rounding(layers_[i].map.shift, 15);
    int32_t* to = next.row(0, y);
    madd_product(layers_[i].map, inputs(i, y), width_, [=, this](int m, int x, vi v) {
      if (RELU) v = v > 0 ? v : vi{};
      v = saturate16(rounding(v));
      int32_t* at = to + (m / 2) * stride_ + x;
      store(at, m % 2 ? paired(load(at), v) : v & 0xffff);
    });
    replicate(next, y);
  }
  void inner(size_t i, int y) { layers_[i].relu ? inner_rows<true>(i, y) : inner_rows<false>(i, y); }

  void finish(int y, int32_t* out) {
    const IntegerConv& last = layers_.back();
    Rounding rounding(last.map.shift, stabiliser_.exists() ? GUARD_LIMIT_BITS : 15);
    const int low = last.relu ? 0 : INT32_MIN;
    if (!stabiliser_.exists()) {
      madd_product(last.map, inputs(layers_.size() - 1, y), width_,
                   [&](int m, int x, vi v) { put(out, m, y, x, saturate16(rounding(v > low ? v : vi{} + low))); });
      return;
    }
    const int limit = 1 << GUARD_LIMIT_BITS;
    madd_product(last.map, inputs(layers_.size() - 1, y), width_, [&](int m, int x, vi v) {
      store(&guarded_[m * stride_ + x], vclamp(rounding(v > low ? v : vi{} + low), -limit, limit));
    });
    rows_.clear();
    for (int p = 0; p < stabiliser_.pairs(); p++) rows_.push_back(levels_[0].row(p, y));
    Rounding side(stabiliser_.shift, GUARD_LIMIT_BITS), guard(GUARD_BITS, 15);
    madd_product(stabiliser_, rows_.data(), width_, [&](int m, int x, vi v) {
      v = vclamp(side(v), -limit, limit) + load(&guarded_[m * stride_ + x]);
      put(out, m, y, x, saturate16(guard(v)));
    });
  }

  void put(int32_t* out, int m, int y, int x, vi v) {
    int32_t* to = out + (static_cast<size_t>(m) * height_ + y) * width_ + x;
    if (x + VL <= width_)
      store(to, v);
    else
      for (int i = 0; i < width_ - x; i++) to[i] = v[i];
  }

  const std::vector<IntegerConv>& layers_;
  const IntegerLayer& stabiliser_;
  const int n_in_, height_, width_, stride_;
  int delay_;
  std::vector<Level> levels_;
  std::vector<const int32_t*> rows_;
  Buffer<int32_t> guarded_;
};

}  // namespace coolvid::integer
