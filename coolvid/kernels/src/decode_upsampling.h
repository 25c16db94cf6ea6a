// The separable upsampling in integers (plugins/upsampling/integer.py): every plane is int16 with the same precision,
// an output row is made from its rows above and below first and then along itself.
#pragma once
#include <utility>

#include "decode_memory.h"
#include "decode_simd.h"

namespace coolvid::integer {

// A filter of int16 taps whose sum of magnitudes stays below 2**14, and the shift that rounds it away.
struct IntegerKernel {
  std::vector<int32_t> taps;
  int shift;
  int size() const { return static_cast<int>(taps.size()); }
};

// Rows of int16 with room before and behind, so that filters may reach beyond both ends.
class PaddedRow {
 public:
  static constexpr int EDGE = 32;
  explicit PaddedRow(int width) : values_(width + 2 * EDGE + 4 * VL) {}
  int16_t* data() { return values_.data() + EDGE; }
  const int16_t* data() const { return values_.data() + EDGE; }
  // What lies `reach` places before and behind the first n values is the nearest of them, or zero.
  void replicate(int reach, int n) {
    int16_t* row = data();
    for (int i = 1; i <= reach; i++) row[-i] = row[0], row[n - 1 + i] = row[n - 1];
  }
  void zero(int reach, int n) {
    int16_t* row = data();
    for (int i = 1; i <= reach; i++) row[-i] = row[n - 1 + i] = 0;
  }

 private:
  Buffer<int16_t> values_;
};

class IntegerUpsampling {
 public:
  IntegerUpsampling(std::vector<IntegerKernel> up, std::vector<IntegerKernel> pre, int bits)
      : up_(up.begin(), up.end()), pre_(pre.begin(), pre.end()), bits_(bits) {}

  // latents: finest first, (height, width) each. All but the last step is done here, row() does the rest.
  void set(const std::vector<const int32_t*>& latents, const std::vector<std::pair<int, int>>& sizes) {
    const int last = static_cast<int>(latents.size()) - 1;
    stack_.resize(last ? 1 : 0);
    read(latents[last], sizes[last], last ? stack_[0] : fine_);
    for (int s = last - 1; s > 0; s--) {
      read(latents[s], sizes[s], fine_);
      std::vector<Plane> next(stack_.size() + 1);
      enter(sizes[s].second);
      PaddedRow middle = scratch();
      for (size_t i = 0; i < next.size(); i++) {
        next[i].resize(sizes[s].first, sizes[s].second);
        next[i].is_zero = is_zero(i);
        for (int y = 0; y < next[i].height && !next[i].is_zero; y++) step(s, i, y, middle, next[i].row(y));
      }
      std::swap(stack_, next);
    }
    if (last) read(latents[0], sizes[0], fine_);
    enter(sizes[0].second);
  }

  int planes() const { return static_cast<int>(stack_.size()) + 1; }

  // What row() needs, of each thread that calls it.
  PaddedRow scratch() const { return PaddedRow(widest_); }

  // Row y of plane i at the finest grid's size; up to two vectors more may be written.
  void row(int i, int y, PaddedRow& middle, int16_t* to) const {
    if (is_zero(i))
      std::memset(to, 0, width_ * sizeof(int16_t));
    else if (stack_.empty())
      std::memcpy(to, fine_.row(y), width_ * sizeof(int16_t));
    else
      step(0, i, y, middle, to);
  }

 private:
  struct Plane {
    int height = 0, width = 0, stride = 0;
    bool is_zero = false;  // then nothing is written to it
    Plain<int16_t> values;
    void resize(int h, int w) {
      height = h, width = w, stride = w + 2 * VL;
      values.resize(static_cast<size_t>(h) * stride);
    }
    int16_t* row(int y) { return values.data() + static_cast<size_t>(y) * stride; }
    const int16_t* row(int y) const { return values.data() + static_cast<size_t>(y) * stride; }
  };

  // out[r] = sum over i of taps[r + k/2 - 1 - 2i] x[clamp(i)], for even and odd r.
  struct Doubling {
    explicit Doubling(const IntegerKernel& kernel) : n((kernel.size() / 2 + 1) / 2), rounding(kernel.shift, 15) {
      const int half = kernel.size() / 2;
      for (int phase = 0; phase < 2; phase++) {
        const int parity = (phase + half - 1) % 2;
        for (int j = kernel.size() - 2 + parity; j >= 0; j -= 4)
          taps[phase].push_back(paired(kernel.taps[j], j >= 2 ? kernel.taps[j - 2] : 0));
        first[phase] = (phase + half - 1 - (kernel.size() - 2 + parity)) / 2;
      }
    }
    int n;                         // pairs of taps
    std::vector<int32_t> taps[2];  // in the order of growing input index
    int first[2];                  // input index of the first tap for output 0 of each phase
    Rounding rounding;
  };

  // x through the kernel, zero outside, plus x itself.
  struct Filtering {
    explicit Filtering(const IntegerKernel& kernel)
        : n((kernel.size() + 1) / 2), reach(kernel.size() / 2),
          unit(kernel.shift >= 0 ? 1 << kernel.shift : kernel.shift == -1), rounding(kernel.shift, 15) {
      for (int j = 0; j < kernel.size(); j += 2)
        taps.push_back(paired(kernel.taps[j], j + 1 < kernel.size() ? kernel.taps[j + 1] : 0));
    }
    int n, reach;
    int32_t unit;
    std::vector<int32_t> taps;
    Rounding rounding;
  };

  void read(const int32_t* latent, std::pair<int, int> size, Plane& plane) {
    plane.resize(size.first, size.second);
    const int low = -32768 >> bits_, high = 32767 >> bits_;
    int32_t any = 0;
    for (int y = 0; y < size.first; y++, latent += size.second) {
      int16_t* to = plane.row(y);
      for (int x = 0; x < size.second; x++) {
        any |= latent[x];
        to[x] = static_cast<int16_t>(latent[x] > high ? 32767 : latent[x] < low ? -32768 : latent[x] * (1 << bits_));
      }
    }
    plane.is_zero = !any;
  }

  // Prepares for steps to planes of this width.
  void enter(int width) {
    widest_ = width_ = width;
    for (auto& plane : stack_) widest_ = std::max(widest_, plane.width);
    nothing_ = PaddedRow(widest_);
  }

  bool is_zero(size_t i) const { return i ? stack_[i - 1].is_zero : fine_.is_zero; }

  // Row y of plane i behind step s: the filtered latent of this grid, or an enlarged plane of the coarser ones.
  void step(int s, size_t i, int y, PaddedRow& middle, int16_t* to) const {
    i ? enlarge(stack_[i - 1], up_[s], y, middle, to) : filter(pre_[s], y, middle, to);
  }

  // to[x] = rounded sum over j of taps[j] rows[j][x].
  static void sum_rows(const int16_t* const* rows, const int32_t* pairs, int n, const Rounding& rounding, int width,
                       int16_t* to) {
    for (int x = 0; x < width; x += VL) {
      vi acc{};
      for (int j = 0; j < n; j++) acc += madd(paired(rows[2 * j] + x, rows[2 * j + 1] + x), vi{} + pairs[j]);
      store_saturated(to + x, rounding(acc));
    }
  }

  void enlarge(const Plane& from, const Doubling& kernel, int y, PaddedRow& middle, int16_t* to) const {
    const int16_t* rows[MAX_ROWS];
    for (int j = 0; j < 2 * kernel.n; j++) rows[j] = from.row(std::clamp(y / 2 + kernel.first[y % 2] + j, 0, from.height - 1));
    sum_rows(rows, kernel.taps[y % 2].data(), kernel.n, kernel.rounding, from.width, middle.data());
    middle.replicate(16, from.width);
    double_row(middle.data(), kernel, width_, to);
  }

  static void double_row(const int16_t* x, const Doubling& kernel, int width, int16_t* to) {
    for (int i = 0; 2 * i < width; i += VL) {
      vi value[2];
      for (int phase = 0; phase < 2; phase++) {
        vi acc{};
        const int16_t* at = x + i + kernel.first[phase];
        for (int j = 0; j < kernel.n; j++) acc += madd(paired(at + 2 * j, at + 2 * j + 1), vi{} + kernel.taps[phase][j]);
        value[phase] = kernel.rounding(acc);
      }
      vi both = saturated_pair(value[0], value[1]);
      std::memcpy(to + 2 * i, &both, sizeof(both));
    }
  }

  void filter(const Filtering& kernel, int y, PaddedRow& middle, int16_t* to) const {
    const int16_t* rows[MAX_ROWS];
    for (int j = 0; j < 2 * kernel.n; j++) {
      const int at = y + j - kernel.reach;
      rows[j] = at < 0 || at >= fine_.height ? nothing_.data() : fine_.row(at);
    }
    sum_rows(rows, kernel.taps.data(), kernel.n, kernel.rounding, width_, middle.data());
    middle.zero(16, width_);
    const int16_t *x = middle.data() - kernel.reach, *own = fine_.row(y);
    for (int i = 0; i < width_; i += VL) {
      vi acc = madd(widen_unsigned(own + i), vi{} + kernel.unit);
      for (int j = 0; j < kernel.n; j++) acc += madd(paired(x + i + 2 * j, x + i + 2 * j + 1), vi{} + kernel.taps[j]);
      store_saturated(to + i, kernel.rounding(acc));
    }
  }

  static constexpr int MAX_ROWS = 18;  // of filters of up to 16 taps
  std::vector<Doubling> up_;
  std::vector<Filtering> pre_;
  const int bits_;
  int width_ = 0, widest_ = 1;
  Plane fine_;                // the finest latent read so far
  std::vector<Plane> stack_;  // the planes behind the last step, finest first
  PaddedRow nothing_{1};
};

}  // namespace coolvid::integer
