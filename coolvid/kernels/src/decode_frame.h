// The frame formula in integers (coolvid/decoding/frame.py, coolvid/picture/color.py): blend the predictions, add the residue,
// round once; and the small steps around it.
#pragma once
#include "decode_simd.h"

namespace coolvid::integer {

constexpr int DENSE_BITS = 6, BLEND_BITS = 12, PREDICTION_BITS = 4;

inline int32_t rounded(int32_t v, int shift) { return shift > 0 ? ((v >> (shift - 1)) + 1) >> 1 : v * (1 << -shift); }

struct PictureShape {
  int height, width, peak;
  bool subsampled;
  size_t at(int y) const { return static_cast<size_t>(y) * width; }
};

// The planes of a picture, out of dense lines with DENSE_BITS that come from top to bottom.
class PictureWriter {
 public:
  PictureWriter(const PictureShape& shape, uint16_t* const* out)
      : s_(shape), out_{out[0], out[1], out[2]}, pitch_(s_.width + 2 * VL), lines_(static_cast<size_t>(6) * pitch_) {}

  // Where row y of plane c is put before write(c, y).
  int32_t* line(int c, int y) { return lines_.data() + (c * 2 + y % 2) * pitch_; }

  void write(int c, int y) {
    if (c == 0 || !s_.subsampled)
      codes(line(c, y), out_[c] + s_.at(y));
    else if (y % 2 || y == s_.height - 1)
      chroma(line(c, 0), line(c, y), out_[c] + static_cast<size_t>(y / 2) * ((s_.width + 1) / 2));
  }

 private:
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

  const PictureShape s_;
  uint16_t* const out_[3];
  const int pitch_;
  Buffer<int32_t> lines_;
};

struct ResidueScale {
  int bits;             // fractional bits of the residue branch's outputs, 0..15
  int low[3], high[3];  // code values that residue outputs 0 and 1 stand for
};

class Compose {
 public:
  // raw: int16 [3 + predictions][height][width]; predictions: int16 [3][height][width] each; out: three planes.
  Compose(const PictureShape& shape, const ResidueScale& scale, const int16_t* raw, std::vector<const int16_t*> predictions,
          uint16_t* const* out)
      : s_(shape), scale_(scale), raw_(raw), predictions_(std::move(predictions)), picture_(shape, out), plane_(s_.at(s_.height)),
        alpha_(s_.width), beta_(s_.width) {}

  void run() {
    for (int y = 0; y < s_.height; y++) {
      if (!predictions_.empty()) weights(raw_ + 3 * plane_ + s_.at(y), alpha_.data());
      if (predictions_.size() > 1) weights(raw_ + 4 * plane_ + s_.at(y), beta_.data());
      for (int c = 0; c < 3; c++) {
        dense(c, y, alpha_.data(), beta_.data(), picture_.line(c, y));
        picture_.write(c, y);
      }
    }
  }

 private:
  // clamp(raw + 1/2, 0, 1) with BLEND_BITS.
  void weights(const int16_t* raw, int32_t* to) {
    const int shift = scale_.bits - BLEND_BITS;
    for (int x = 0; x < s_.width; x++)
      to[x] = std::min(std::max(rounded(raw[x], shift) + (1 << (BLEND_BITS - 1)), 0), 1 << BLEND_BITS);
  }

  void dense(int c, int y, const int32_t* alpha, const int32_t* beta, int32_t* to) {
    const size_t at = c * plane_ + s_.at(y);
    const int gain = scale_.high[c] - scale_.low[c], offset = scale_.low[c] * (1 << DENSE_BITS), shift = scale_.bits - DENSE_BITS;
    for (int x = 0; x < s_.width; x++) to[x] = rounded(raw_[at + x] * gain, shift) + offset;
    if (predictions_.empty()) return;
    constexpr int down = BLEND_BITS + PREDICTION_BITS - DENSE_BITS;
    const int16_t* first = predictions_[0] + at;
    if (predictions_.size() == 1) {
      for (int x = 0; x < s_.width; x++) to[x] += rounded(alpha[x] * first[x], down);
      return;
    }
    const int16_t* second = predictions_[1] + at;
    for (int x = 0; x < s_.width; x++) {
      int32_t both = beta[x] * first[x] + ((1 << BLEND_BITS) - beta[x]) * second[x];
      to[x] += rounded(alpha[x] * rounded(both, BLEND_BITS), down);
    }
  }

  const PictureShape s_;
  const ResidueScale scale_;
  const int16_t* raw_;
  std::vector<const int16_t*> predictions_;
  PictureWriter picture_;
  const size_t plane_;
  Buffer<int32_t> alpha_, beta_;
};

// The dense planes of a frame, moved by (dy, dx) whole pixels, borders replicated.
struct MovedFrame {
  const uint16_t* planes[3];
  int log2[3], pitch[3];  // how often a plane repeats in both directions, as log2: 0 or 1
  int height, width, dy, dx;

  // line[j] = the dense plane's value in row clamp(y + dy), column clamp(j + dx). line has room for width + 2 values.
  void row(int c, int y, int32_t* line) const {
    const uint16_t* from = planes[c] + static_cast<size_t>(std::clamp(y + dy, 0, height - 1) >> log2[c]) * pitch[c];
    const int first = std::clamp(-dx, 0, width), last = std::clamp(width - dx, first, width);
    for (int j = 0; j < first; j++) line[j] = from[0];
    if (log2[c])
      twice(from, first + dx, last - first, line + first);
    else
      for (int j = first; j < last; j++) line[j] = from[j + dx];
    for (int j = last; j < width; j++) line[j] = from[(width - 1) >> log2[c]];
  }

 private:
  // n values from place `at` on of a row whose values count twice.
  static void twice(const uint16_t* from, int at, int n, int32_t* to) {
    if (n > 0 && at % 2) *to++ = from[at++ / 2], n--;
    from += at / 2;
    for (int k = 0; k < n / 2; k++) to[2 * k] = to[2 * k + 1] = from[k];
    if (n % 2) to[n - 1] = from[n / 2];
  }
};

// The mean of one or two references: the picture of a copy (coolvid/decoding/frame.py, copied).
inline void mean_of(const std::vector<MovedFrame>& references, const PictureShape& shape, uint16_t* const* out) {
  PictureWriter picture(shape, out);
  Buffer<int32_t> other(shape.width + 2);
  const int down = references.size() > 1;
  for (int y = 0; y < shape.height; y++)
    for (int c = 0; c < 3; c++) {
      int32_t* line = picture.line(c, y);
      references[0].row(c, y, line);
      if (down) references[1].row(c, y, other.data());
      for (int x = 0; x < shape.width; x++) line[x] = (line[x] + other[x]) << (DENSE_BITS - down);
      picture.write(c, y);
    }
}

}  // namespace coolvid::integer
