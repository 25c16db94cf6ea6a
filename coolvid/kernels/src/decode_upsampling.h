// The separable upsampling in integers (plugins/upsampling/integer.py): every plane is int16 with the same precision,
// an output row is made from its rows above and below first and then along itself.
#pragma once
#include <utility>

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
  explicit PaddedRow(int width) : width_(width), values_(width + 2 * EDGE + 4 * VL) {}
  int16_t* data() { return values_.data() + EDGE; }
  void replicate(int reach) {
    int16_t* row = data();
    for (int i = 1; i <= reach; i++) row[-i] = row[0], row[width_ - 1 + i] = row[width_ - 1];
  }
  void zero(int reach) {
    int16_t* row = data();
    for (int i = 1; i <= reach; i++) row[-i] = row[width_ - 1 + i] = 0;
  }

 private:
  int width_;
  Buffer<int16_t> values_;
};

class IntegerUpsampling {
 public:
  struct Plane {
    int height = 0, width = 0, stride = 0;
    bool is_zero = false;
    Buffer<int16_t> values;
    void resize(int h, int w) {
      height = h, width = w, stride = w + 2 * VL;
      values.resize(static_cast<size_t>(h) * stride);
    }
    int16_t* row(int y) { return values.data() + static_cast<size_t>(y) * stride; }
  };

  IntegerUpsampling(std::vector<IntegerKernel> up, std::vector<IntegerKernel> pre, int bits)
      : up_(std::move(up)), pre_(std::move(pre)), bits_(bits) {}

  // latents: finest first, (height, width) each; out: int32 [grids][height][width] of the finest.
  void run(const std::vector<const int32_t*>& latents, const std::vector<std::pair<int, int>>& sizes, int32_t* out) {
    const int last = static_cast<int>(latents.size()) - 1;
    std::vector<Plane> stack(1), next;
    read(latents[last], sizes[last], stack[0]);
    for (int s = last - 1; s >= 0; s--) {
      auto [height, width] = sizes[s];
      next = std::vector<Plane>(stack.size() + 1);
      Plane fine;
      read(latents[s], sizes[s], fine);
      next[0].resize(height, width);
      filter(fine, pre_[s], next[0]);
      for (size_t i = 0; i < stack.size(); i++) {
        next[i + 1].resize(height, width);
        enlarge(stack[i], up_[s], next[i + 1]);
      }
      std::swap(stack, next);
    }
    for (auto& plane : stack)
      for (int y = 0; y < plane.height; y++, out += plane.width) std::copy_n(plane.row(y), plane.width, out);
  }

 private:
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

  // to[x] = rounded sum over j of taps[j] rows[j][x].
  static void sum_rows(const int16_t* const* rows, const int32_t* pairs, int n, const Rounding& rounding, int width,
                       int16_t* to) {
    for (int x = 0; x < width; x += VL) {
      vi acc{};
      for (int j = 0; j < n; j++) acc += madd(paired(rows[2 * j] + x, rows[2 * j + 1] + x), vi{} + pairs[j]);
      store_narrow(to + x, saturate16(rounding(acc)));
    }
  }

  // The taps of every second place from `first` on, paired, in the order of growing input index.
  static std::vector<int32_t> phase_taps(const IntegerKernel& kernel, int first) {
    std::vector<int32_t> pairs;
    for (int j = kernel.size() - 2 + first; j >= 0; j -= 4) pairs.push_back(paired(kernel.taps[j], j >= 2 ? kernel.taps[j - 2] : 0));
    return pairs;
  }

  // out[r] = sum over i of taps[r + k/2 - 1 - 2i] x[clamp(i)], rows first, then columns.
  static void enlarge(Plane& from, const IntegerKernel& kernel, Plane& to) {
    if ((to.is_zero = from.is_zero)) return;
    const int half = kernel.size() / 2, n = (half + 1) / 2;
    PaddedRow middle(from.width);
    Rounding rounding(kernel.shift, 15);
    std::vector<int32_t> taps[2];
    int first[2];  // input index of the first tap for output 0 of each phase
    for (int phase = 0; phase < 2; phase++) {
      int parity = (phase + half - 1) % 2;
      taps[phase] = phase_taps(kernel, parity);
      first[phase] = (phase + half - 1 - (kernel.size() - 2 + parity)) / 2;
    }
    std::vector<const int16_t*> rows(2 * n);
    for (int y = 0; y < to.height; y++) {
      const int phase = y % 2;
      for (int j = 0; j < 2 * n; j++) rows[j] = from.row(std::clamp(y / 2 + first[phase] + j, 0, from.height - 1));
      sum_rows(rows.data(), taps[phase].data(), n, rounding, from.width, middle.data());
      middle.replicate(16);
      double_row(middle.data(), taps, first, n, rounding, to.width, to.row(y));
    }
  }

  static void double_row(const int16_t* x, const std::vector<int32_t>* taps, const int* first, int n,
                         const Rounding& rounding, int width, int16_t* to) {
    for (int i = 0; 2 * i < width; i += VL) {
      vi value[2];
      for (int phase = 0; phase < 2; phase++) {
        vi acc{};
        const int16_t* at = x + i + first[phase];
        for (int j = 0; j < n; j++) acc += madd(paired(at + 2 * j, at + 2 * j + 1), vi{} + taps[phase][j]);
        value[phase] = saturate16(rounding(acc));
      }
      vi both = paired(value[0], value[1]);
      if (2 * i + 2 * VL <= width)
        std::memcpy(to + 2 * i, &both, sizeof(both));
      else
        std::memcpy(to + 2 * i, &both, (width - 2 * i) * sizeof(int16_t));
    }
  }

  // x through the kernel, zero outside, rows first, plus x itself.
  static void filter(Plane& from, const IntegerKernel& kernel, Plane& to) {
    if ((to.is_zero = from.is_zero)) return;
    const int reach = kernel.size() / 2, n = (kernel.size() + 1) / 2;
    PaddedRow middle(from.width), nothing(from.width);
    Rounding rounding(kernel.shift, 15);
    std::vector<int32_t> taps;
    for (int j = 0; j < kernel.size(); j += 2)
      taps.push_back(paired(kernel.taps[j], j + 1 < kernel.size() ? kernel.taps[j + 1] : 0));
    const int32_t unit = kernel.shift >= 0 ? 1 << kernel.shift : kernel.shift == -1;
    std::vector<const int16_t*> rows(2 * n);
    for (int y = 0; y < from.height; y++) {
      for (int j = 0; j < 2 * n; j++) {
        int at = y + j - reach;
        rows[j] = at < 0 || at >= from.height ? nothing.data() : from.row(at);
      }
      sum_rows(rows.data(), taps.data(), n, rounding, from.width, middle.data());
      middle.zero(16);
      const int16_t *x = middle.data() - reach, *own = from.row(y);
      for (int i = 0; i < from.width; i += VL) {
        vi acc = madd(widen(own + i) & 0xffff, vi{} + unit);
        for (int j = 0; j < n; j++) acc += madd(paired(x + i + 2 * j, x + i + 2 * j + 1), vi{} + taps[j]);
        store_narrow(to.row(y) + i, saturate16(rounding(acc)));
      }
    }
  }

  std::vector<IntegerKernel> up_, pre_;
  int bits_;
};

}  // namespace coolvid::integer
