// Motion compensation in integers (plugins/warper/integer.py): positions in 1/64 pixel, rows filtered and rounded to
// PREDICTION_BITS first, then columns. The reference is kept with four channels side by side, each value paired with
// its right neighbour's, so that one instruction takes two taps of all channels of some pixels. Neighbours with the
// same vector, found in bands of four rows, are filtered together.
#pragma once
#include "decode_memory.h"
#include "decode_simd.h"

namespace coolvid::integer {

template <int L>
struct Lanes {
  typedef int32_t type __attribute__((vector_size(L * 4), aligned(4), may_alias));
  typedef int16_t narrow __attribute__((vector_size(L * 2), aligned(2), may_alias));
};

// madd() of decode_simd.h for any number of lanes.
template <int L>
COOLVID_INLINE typename Lanes<L>::type madd_lanes(typename Lanes<L>::type a, typename Lanes<L>::type b) {
  if constexpr (L == VL) return madd(a, b);
#if defined(__x86_64__)
  if constexpr (L == 4) return (typename Lanes<4>::type)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
  return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}

// Flow in 1/64 pixel, a vector for each block of 2**log2 x 2**log2 pixels.
struct Vectors {
  const int32_t *x, *y;
  int width, log2;
  const int32_t* row_x(int at) const { return x + static_cast<size_t>(at >> log2) * width; }
  const int32_t* row_y(int at) const { return y + static_cast<size_t>(at >> log2) * width; }
};

class IntegerWarp {
 public:
  static constexpr int FLOW_BITS = 6, PREDICTION_BITS = 4, TAP_BITS = 14, BAND = 4, MAX_TAPS = 16, GROUP = 4;

  // taps: int32 [64][n].
  IntegerWarp(int height, int width, const int32_t* taps, int n)
      : height_(height), width_(width), n_(n), margin_(n), stride_((width + 2 * margin_) * GROUP),
        pairs_(static_cast<size_t>(height + 2 * margin_) * stride_), lines_(static_cast<size_t>(GROUP) * pitch()) {
    for (int i = 0; i < 64 * n; i += 2) taps_.push_back(paired(taps[i], taps[i + 1]));
  }

  // Sets up to GROUP channels: row(c, y, line) fills width values of channel c, row y, within int16; line has room for two more.
  template <class Row>
  void set(int channels, Row row) {
    for (int y = 0; y < height_; y++) {
      for (int c = 0; c < channels; c++) {
        int32_t* line = lines_.data() + c * pitch();
        row(c, y, line);
        line[width_] = line[width_ - 1];
        for (int x = 0; x < width_; x++) line[x] = paired(line[x], line[x + 1]);
      }
      side_by_side(lines_.data(), at(y, 0));
      for (int i = 1; i <= margin_; i++)
        for (int c = 0; c < GROUP; c++) {
          const int32_t first = at(y, 0)[c], last = at(y, width_ - 1)[c];
          at(y, -i)[c] = paired(first, first), at(y, width_ - 1 + i)[c] = last;
        }
    }
    for (int i = 1; i <= margin_; i++) {
      std::copy_n(at(0, -margin_), stride_, at(-i, -margin_));
      std::copy_n(at(height_ - 1, -margin_), stride_, at(height_ - 1 + i, -margin_));
    }
  }

  // out: int16 [channels][height][width] of the channels last set.
  void run(const Vectors& flow, int channels, int16_t* out) {
    channels_ = channels;
    for (int y = 0; y < height_; y += BAND) {
      int rows = std::min(BAND, height_ - y);
      for (int x = 0; x < width_;) {
        int n = run_length(flow, x, y, rows);
        if (n > 0)
          block(flow, x, y, n, rows, out);
        else
          for (int i = 0; i < rows; i++) block(flow, x, y + i, 1, 1, out);
        x += std::max(n, 1);
      }
    }
  }

 private:
  typedef Lanes<4>::type Quad;

  int pitch() const { return width_ + 2 + GROUP; }
  int32_t* at(int y, int x) { return pairs_.data() + static_cast<ptrdiff_t>(y + margin_) * stride_ + (x + margin_) * GROUP; }

  // Four lines of pairs as columns of four; up to three columns more are written.
  void side_by_side(const int32_t* lines, int32_t* to) const {
    for (int x = 0; x < width_; x += 4, to += 4 * GROUP) {
      const Quad a = *(const Quad*)(lines + x), b = *(const Quad*)(lines + pitch() + x), c = *(const Quad*)(lines + 2 * pitch() + x),
                 d = *(const Quad*)(lines + 3 * pitch() + x);
      constexpr auto zip = [](int i) { return i / 2 + i % 2 * 4; };
      constexpr auto zip_high = [](int i) { return 2 + i / 2 + i % 2 * 4; };
      constexpr auto low = [](int i) { return i % 2 + i / 2 * 4; };
      constexpr auto high = [](int i) { return 2 + i % 2 + i / 2 * 4; };
      const Quad ab = shuffled(a, b, zip), ab2 = shuffled(a, b, zip_high);
      const Quad cd = shuffled(c, d, zip), cd2 = shuffled(c, d, zip_high);
      ((Quad*)to)[0] = shuffled(ab, cd, low);
      ((Quad*)to)[1] = shuffled(ab, cd, high);
      ((Quad*)to)[2] = shuffled(ab2, cd2, low);
      ((Quad*)to)[3] = shuffled(ab2, cd2, high);
    }
  }

  // How many columns from x on have, in all rows of the band, the vector of (y, x); 0: not even the first. The run ends
  // where the clamping of its columns would begin; where they are clamped it is 1.
  int run_length(const Vectors& flow, int x, int y, int rows) const {
    const int first = x >> flow.log2, step = 1 << flow.log2;
    const int32_t vx = flow.row_x(y)[first], vy = flow.row_y(y)[first];
    const int64_t left = x + (static_cast<int64_t>(vx) >> FLOW_BITS), right = width_ - 1 + n_ / 2;
    const int most = left < -n_ / 2 || left > right ? 1 : static_cast<int>(std::min<int64_t>(width_ - x, right - left + 1));
    int n = 0;
    for (int k = first; n < most; k++, n = k * step - x) {
      int32_t other = 0;
      for (int i = 0; i < rows; i += step) other |= (flow.row_x(y + i)[k] ^ vx) | (flow.row_y(y + i)[k] ^ vy);
      if (other) return n;
    }
    return most;
  }

  // n columns and some rows from (y, x) on, all with the vector of (y, x).
  void block(const Vectors& flow, int x, int y, int n, int rows, int16_t* out) {
    const int32_t vx = flow.row_x(y)[x >> flow.log2], vy = flow.row_y(y)[x >> flow.log2];
    const int half = n_ / 2, column = place_of(x, vx, width_, half);
    const int first = place_of(y, vy, height_, half), last = place_of(y + rows - 1, vy, height_, half);
    const bool together = last == first + rows - 1;
    for (int i = 0; i < (together ? 1 : rows); i++) {
      int row = place_of(y + i, vy, height_, half);
      filter(at(row - half + 1, column - half + 1), n, together ? rows : 1, vx & 63, vy & 63,
             out + static_cast<size_t>(y + i) * width_ + x);
    }
  }

  // Beyond these places every tap sees the border: clamping there changes nothing.
  static int place_of(int at, int32_t flow, int size, int half) {
    return static_cast<int>(std::clamp<int64_t>(at + (static_cast<int64_t>(flow) >> FLOW_BITS), -half, size - 1 + half));
  }

  // `from` points at the first tap of the first row and column.
  void filter(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int16_t* to) {
    if (n == 1)
      filter_taps<4>(from, 1, rows, fraction_x, fraction_y, to);
    else
      filter_taps<VL>(from, n, rows, fraction_x, fraction_y, to);
  }
  template <int L>
  void filter_taps(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int16_t* to) {
    switch (n_) {
      case 2: return filter_pixels<L, 2>(from, n, rows, fraction_x, fraction_y, to);
      case 4: return filter_pixels<L, 4>(from, n, rows, fraction_x, fraction_y, to);
      case 8: return filter_pixels<L, 8>(from, n, rows, fraction_x, fraction_y, to);
      default: return filter_pixels<L, 0>(from, n, rows, fraction_x, fraction_y, to);
    }
  }

  // L / GROUP pixels at a time. N: number of taps, 0 for n_. A fraction of 0 has one tap, which is 1.
  template <int L, int N>
  void filter_pixels(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int16_t* to) {
    typedef typename Lanes<L>::type V;
    constexpr int PIXELS = L / GROUP;
    const int taps = N ? N : n_, middle_tap = taps / 2 - 1;
    const int32_t *horizontal = &taps_[fraction_x * taps / 2], *vertical = &taps_[fraction_y * taps / 2];
    const int first = fraction_y ? 0 : middle_tap, count = fraction_y ? taps + rows - 1 : rows;
    for (int x = 0; x < n; x += PIXELS, from += L) {
      V middle[MAX_TAPS + BAND];
      for (int i = 0; i < count; i++) {
        const int32_t* row = from + static_cast<ptrdiff_t>(first + i) * stride_;
        if (!fraction_x) {
          middle[i] = (*(const V*)(row + middle_tap * GROUP) << 16) >> (16 - PREDICTION_BITS);
          middle[i] = limited<V>(middle[i]);
          continue;
        }
        V acc{};
        for (int t = 0; t < taps / 2; t++) acc += madd_lanes<L>(*(const V*)(row + 2 * t * GROUP), V{} + horizontal[t]);
        middle[i] = rounded<TAP_BITS - PREDICTION_BITS, V>(acc);
      }
      if (fraction_y) columns<L>(middle, vertical, taps, rows);
      for (int i = 0; i < rows; i++) put<L>(middle[i], std::min(PIXELS, n - x), to + static_cast<size_t>(i) * width_ + x);
    }
  }

  // rows filtered vertically, in place; each row and the next one make a pair.
  template <int L>
  static void columns(typename Lanes<L>::type* middle, const int32_t* vertical, int taps, int rows) {
    typedef typename Lanes<L>::type V;
    for (int i = 0; i < taps + rows - 2; i++) middle[i] = (middle[i] & 0xffff) | middle[i + 1] << 16;
    for (int i = 0; i < rows; i++) {
      V acc{};
      for (int t = 0; t < taps; t += 2) acc += madd_lanes<L>(middle[i + t], V{} + vertical[t / 2]);
      middle[i] = rounded<TAP_BITS, V>(acc);
    }
  }

  // n pixels to the planes, where they lie channel by channel.
  template <int L>
  void put(typename Lanes<L>::type v, int n, int16_t* to) const {
    constexpr int PIXELS = L / GROUP;
    const auto by_channel = shuffled(v, v, [](int i) { return i % PIXELS * GROUP + i / PIXELS; });
    const auto planes = __builtin_convertvector(by_channel, typename Lanes<L>::narrow);
    const size_t plane = static_cast<size_t>(height_) * width_;
    for (int c = 0; c < channels_; c++, to += plane)
      if (n == PIXELS)
        std::memcpy(to, (const int16_t*)&planes + c * PIXELS, PIXELS * sizeof(int16_t));
      else
        std::memcpy(to, (const int16_t*)&planes + c * PIXELS, n * sizeof(int16_t));
  }

  template <class V>
  static V limited(V v) {
    v = v < -32768 ? V{} - 32768 : v;
    return v > 32767 ? V{} + 32767 : v;
  }
  template <int SHIFT, class V>
  static V rounded(V v) {
    return limited<V>((v + (1 << (SHIFT - 1))) >> SHIFT);
  }

  const int height_, width_, n_, margin_, stride_;
  int channels_ = 0;
  std::vector<int32_t> taps_;  // of each fraction, in pairs
  Plain<int32_t> pairs_;
  Buffer<int32_t> lines_;
};

}  // namespace coolvid::integer
