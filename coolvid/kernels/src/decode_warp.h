// Motion compensation in integers (plugins/warper/integer.py): positions in 1/64 pixel, rows filtered and rounded to
// PREDICTION_BITS first, then columns. The reference is kept with four channels side by side, each value paired with
// its right neighbour's, so that one instruction takes two taps of all channels of some pixels. Neighbours with the
// same vector, found in bands of four rows, are filtered together.
#pragma once
#include "decode_simd.h"

namespace coolvid::integer {

template <int L>
struct Lanes {
  typedef int32_t type __attribute__((vector_size(L * 4), aligned(4), may_alias));
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

class IntegerWarp {
 public:
  static constexpr int FLOW_BITS = 6, PREDICTION_BITS = 4, TAP_BITS = 14, BAND = 4, MAX_TAPS = 16, GROUP = 4;

  // taps: int32 [64][n].
  IntegerWarp(int height, int width, const int32_t* taps, int n)
      : height_(height), width_(width), n_(n), margin_(n), stride_((width + 2 * margin_) * GROUP) {
    for (int i = 0; i < 64 * n; i += 2) taps_.push_back(paired(taps[i], taps[i + 1]));
    for (int i = 0; i < 64 * n; i++) single_.push_back(taps[i]);
    pairs_.resize(static_cast<size_t>(height + 2 * margin_) * stride_);
    lines_.resize(static_cast<size_t>(GROUP) * (width + 1));
  }

  // Sets up to GROUP channels: row(c, y) fills width values of channel c, row y. false when one is beyond int16.
  template <class Row>
  bool set(int channels, Row row) {
    const int pitch = width_ + 1;
    int32_t* lines = lines_.data();
    bool fits = true;
    for (int y = 0; y < height_; y++) {
      for (int c = 0; c < channels; c++) {
        int32_t* line = lines + c * pitch;
        row(c, y, line);
        line[width_] = line[width_ - 1];
        for (int x = 0; x < width_; x++) fits &= line[x] == static_cast<int16_t>(line[x]);
      }
      int32_t* to = at(y, 0);
      Quad next = {lines[0], lines[pitch], lines[2 * pitch], lines[3 * pitch]};
      for (int x = 0; x < width_; x++, to += GROUP) {
        Quad now = next;
        next = Quad{lines[x + 1], lines[pitch + x + 1], lines[2 * pitch + x + 1], lines[3 * pitch + x + 1]};
        *(Quad*)to = (now & 0xffff) | next << 16;
      }
      replicate(y, lines, pitch);
    }
    for (int i = 1; i <= margin_; i++) {
      std::copy_n(at(0, -margin_), stride_, at(-i, -margin_));
      std::copy_n(at(height_ - 1, -margin_), stride_, at(height_ - 1 + i, -margin_));
    }
    return fits;
  }

  // flow: int32 [2][height][width], x then y; out: int32 [channels][height][width] of the channels last set.
  void run(const int32_t* flow, int channels, int32_t* out) {
    channels_ = channels;
    const int32_t *fx = flow, *fy = flow + static_cast<size_t>(height_) * width_;
    for (int y = 0; y < height_; y += BAND) {
      int rows = std::min(BAND, height_ - y);
      for (int x = 0; x < width_;) {
        int n = run_length(fx, fy, x, y, rows);
        if (n > 0)
          block(fx, fy, x, y, n, rows, out);
        else
          for (int i = 0; i < rows; i++) block(fx, fy, x, y + i, 1, 1, out);
        x += std::max(n, 1);
      }
    }
  }

 private:
  typedef Lanes<4>::type Quad;

  int32_t* at(int y, int x) { return pairs_.data() + static_cast<ptrdiff_t>(y + margin_) * stride_ + (x + margin_) * GROUP; }

  void replicate(int y, const int32_t* lines, int pitch) {
    for (int c = 0; c < GROUP; c++) {
      int32_t left = paired(lines[c * pitch], lines[c * pitch]);
      int32_t right = paired(lines[c * pitch + width_], lines[c * pitch + width_]);
      for (int i = 1; i <= margin_; i++) at(y, -i)[c] = left, at(y, width_ - 1 + i)[c] = right;
    }
  }

  // How many columns from x on have, in all rows of the band, the vector of (y, x); 0: not even the first. The run ends
  // where the clamping of its columns would begin; where they are clamped it is 1.
  int run_length(const int32_t* fx, const int32_t* fy, int x, int y, int rows) const {
    fx += static_cast<size_t>(y) * width_ + x, fy += static_cast<size_t>(y) * width_ + x;
    const int32_t vx = fx[0], vy = fy[0];
    const int64_t left = x + (static_cast<int64_t>(vx) >> FLOW_BITS), right = width_ - 1 + n_ / 2;
    const int most = left < -n_ / 2 || left > right ? 1 : static_cast<int>(std::min<int64_t>(width_ - x, right - left + 1));
    const size_t w = width_;
    for (int n = 0; n < most; n++) {
      int32_t other = 0;
      for (int i = 0; i < rows; i++) other |= (fx[i * w + n] ^ vx) | (fy[i * w + n] ^ vy);
      if (other) return n;
    }
    return most;
  }

  // n columns and some rows from (y, x) on, all with the vector of (y, x).
  void block(const int32_t* fx, const int32_t* fy, int x, int y, int n, int rows, int32_t* out) {
    const size_t place = static_cast<size_t>(y) * width_ + x;
    const int half = n_ / 2, column = place_of(x, fx[place], width_, half);
    const int first = place_of(y, fy[place], height_, half), last = place_of(y + rows - 1, fy[place], height_, half);
    const int fraction_x = fx[place] & 63, fraction_y = fy[place] & 63;
    const bool together = last == first + rows - 1;
    for (int i = 0; i < (together ? 1 : rows); i++) {
      int row = place_of(y + i, fy[place], height_, half);
      filter(at(row - half + 1, column - half + 1), n, together ? rows : 1, fraction_x, fraction_y, out + place + static_cast<size_t>(i) * width_);
    }
  }

  // Beyond these places every tap sees the border: clamping there changes nothing.
  static int place_of(int at, int32_t flow, int size, int half) {
    return static_cast<int>(std::clamp<int64_t>(at + (static_cast<int64_t>(flow) >> FLOW_BITS), -half, size - 1 + half));
  }

  // `from` points at the first tap of the first row and column.
  void filter(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int32_t* to) {
    if (n == 1)
      filter_taps<4>(from, 1, rows, fraction_x, fraction_y, to);
    else
      filter_taps<VL>(from, n, rows, fraction_x, fraction_y, to);
  }
  template <int L>
  void filter_taps(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int32_t* to) {
    switch (n_) {
      case 2: return filter_pixels<L, 2>(from, n, rows, fraction_x, fraction_y, to);
      case 4: return filter_pixels<L, 4>(from, n, rows, fraction_x, fraction_y, to);
      case 8: return filter_pixels<L, 8>(from, n, rows, fraction_x, fraction_y, to);
      default: return filter_pixels<L, 0>(from, n, rows, fraction_x, fraction_y, to);
    }
  }

  // L / GROUP pixels at a time. N: number of taps, 0 for n_. A fraction of 0 has one tap, which is 1.
  template <int L, int N>
  void filter_pixels(const int32_t* from, int n, int rows, int fraction_x, int fraction_y, int32_t* to) {
    typedef typename Lanes<L>::type V;
    constexpr int PIXELS = L / GROUP;
    const int taps = N ? N : n_, middle_tap = taps / 2 - 1;
    const int32_t *horizontal = &taps_[fraction_x * taps / 2], *vertical = &single_[fraction_y * taps];
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
      for (int i = 0; i < rows; i++) {
        V v = middle[i];
        if (fraction_y) {
          V acc{};
          for (int t = 0; t < taps; t++) acc += middle[i + t] * vertical[t];
          v = rounded<TAP_BITS, V>(acc);
        }
        put<PIXELS>((const int32_t*)&v, std::min(PIXELS, n - x), to + static_cast<size_t>(i) * width_ + x);
      }
    }
  }

  template <int PIXELS>
  void put(const int32_t* v, int n, int32_t* to) const {
    const size_t plane = static_cast<size_t>(height_) * width_;
    for (int c = 0; c < channels_; c++, to += plane)
      if (n == PIXELS)
        for (int i = 0; i < PIXELS; i++) to[i] = v[i * GROUP + c];
      else
        for (int i = 0; i < n; i++) to[i] = v[i * GROUP + c];
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
  std::vector<int32_t> taps_, single_;  // taps of each fraction, in pairs and alone
  Buffer<int32_t> pairs_, lines_;
};

}  // namespace coolvid::integer
