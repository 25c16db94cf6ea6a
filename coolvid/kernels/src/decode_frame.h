// The frame formula in integers (coolvid/reconstruct/frame.py, coolvid/color.py): blend the predictions, add the residue,
// round once; and the small steps around it.
#pragma once
#include "decode_simd.h"

namespace coolvid::integer {

constexpr int DENSE_BITS = 6, BLEND_BITS = 12, PREDICTION_BITS = 4;

struct ComposeShape {
  int height, width, bits;       // bits: fractional bits of the residue branch's outputs, 0..15
  int low[3], high[3];           // code values that residue outputs 0 and 1 stand for
  int peak;
  bool subsampled;
};

class Compose {
 public:
  // raw: int32 [3 + predictions][height][width]; predictions: int32 [3][height][width] each; out: three planes.
  Compose(const ComposeShape& shape, const int32_t* raw, std::vector<const int32_t*> predictions, uint16_t* const* out)
      : s_(shape), raw_(raw), predictions_(std::move(predictions)), out_(out), plane_(static_cast<size_t>(s_.height) * s_.width),
        lines_(static_cast<size_t>(6 + 2) * (s_.width + 2 * VL)) {}

  void run() {
    const int pitch = s_.width + 2 * VL;
    int32_t *alpha = lines_.data() + 6 * pitch, *beta = alpha + pitch;
    for (int y = 0; y < s_.height; y++) {
      if (!predictions_.empty()) weights(raw_ + 3 * plane_ + static_cast<size_t>(y) * s_.width, alpha);
      if (predictions_.size() > 1) weights(raw_ + 4 * plane_ + static_cast<size_t>(y) * s_.width, beta);
      for (int c = 0; c < 3; c++) {
        int32_t* line = lines_.data() + (c * 2 + y % 2) * pitch;
        dense(c, y, alpha, beta, line);
        if (c == 0 || !s_.subsampled) codes(line, out_[c] + static_cast<size_t>(y) * s_.width);
        else if (y % 2 || y == s_.height - 1) chroma(lines_.data() + c * 2 * pitch, line, out_[c] + static_cast<size_t>(y / 2) * ((s_.width + 1) / 2));
      }
    }
  }

 private:
  static int32_t rounded(int32_t v, int shift) { return shift > 0 ? ((v >> (shift - 1)) + 1) >> 1 : v * (1 << -shift); }

  // clamp(raw + 1/2, 0, 1) with BLEND_BITS.
  void weights(const int32_t* raw, int32_t* to) {
    const int shift = s_.bits - BLEND_BITS;
    for (int x = 0; x < s_.width; x++)
      to[x] = std::min(std::max(rounded(raw[x], shift) + (1 << (BLEND_BITS - 1)), 0), 1 << BLEND_BITS);
  }

  void dense(int c, int y, const int32_t* alpha, const int32_t* beta, int32_t* to) {
    const size_t at = c * plane_ + static_cast<size_t>(y) * s_.width;
    const int gain = s_.high[c] - s_.low[c], offset = s_.low[c] * (1 << DENSE_BITS), shift = s_.bits - DENSE_BITS;
    for (int x = 0; x < s_.width; x++) to[x] = rounded(raw_[at + x] * gain, shift) + offset;
    if (predictions_.empty()) return;
    constexpr int down = BLEND_BITS + PREDICTION_BITS - DENSE_BITS;
    const int32_t* first = predictions_[0] + at;
    if (predictions_.size() == 1) {
      for (int x = 0; x < s_.width; x++) to[x] += rounded(alpha[x] * first[x], down);
      return;
    }
    const int32_t* second = predictions_[1] + at;
    for (int x = 0; x < s_.width; x++) {
      int32_t both = beta[x] * first[x] + ((1 << BLEND_BITS) - beta[x]) * second[x];
      to[x] += rounded(alpha[x] * rounded(both, BLEND_BITS), down);
    }
  }

  void codes(const int32_t* line, uint16_t* to) {
    for (int x = 0; x < s_.width; x++)
      to[x] = static_cast<uint16_t>(std::min(std::max(rounded(line[x], DENSE_BITS), 0), s_.peak));
  }

  // Means of 2x2 blocks of two lines; the last line and column count twice where the size is odd.
  void chroma(const int32_t* upper, const int32_t* lower, uint16_t* to) {
    for (int x = 0; x < s_.width / 2; x++)
      to[x] = mean(static_cast<int64_t>(upper[2 * x]) + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]);
    if (s_.width % 2) to[s_.width / 2] = mean(2 * (static_cast<int64_t>(upper[s_.width - 1]) + lower[s_.width - 1]));
  }
  uint16_t mean(int64_t sum) const {
    constexpr int shift = DENSE_BITS + 2;
    return static_cast<uint16_t>(std::min<int64_t>(std::max<int64_t>((sum + (1 << (shift - 1))) >> shift, 0), s_.peak));
  }

  const ComposeShape s_;
  const int32_t* raw_;
  std::vector<const int32_t*> predictions_;
  uint16_t* const* out_;
  const size_t plane_;
  Buffer<int32_t> lines_;
};

// line[j] = row[clamp(j + dx) >> log2]: a row of code values, repeated 2**log2 times, moved, borders replicated.
inline void moved_row(const uint16_t* row, int log2, int width, int dx, int32_t* line) {
  const int first = std::clamp(-dx, 0, width), last = std::clamp(width - dx, first, width);
  for (int j = 0; j < first; j++) line[j] = row[0];
  if (log2)
    for (int j = first; j < last; j++) line[j] = row[(j + dx) >> log2];
  else
    for (int j = first; j < last; j++) line[j] = row[j + dx];
  for (int j = last; j < width; j++) line[j] = row[(width - 1) >> log2];
}

// Each value of a plane rounded by `shift` (coolvid/fixedpoint.py, shift_round), then repeated 2**log2 times.
inline void repeat(const int32_t* plane, int plane_width, int log2, int shift, int height, int width, int32_t* out) {
  Buffer<int32_t> line(plane_width);
  for (int i = 0; i < height; i++, out += width) {
    if (i & ((1 << log2) - 1)) {
      std::copy_n(out - width, width, out);
      continue;
    }
    const int32_t* row = plane + static_cast<size_t>(i >> log2) * plane_width;
    for (int j = 0; j < plane_width; j++) line[j] = shift > 0 ? ((row[j] >> (shift - 1)) + 1) >> 1 : row[j] * (1 << -shift);
    for (int j = 0; j < width; j++) out[j] = line[j >> log2];
  }
}

}  // namespace coolvid::integer
