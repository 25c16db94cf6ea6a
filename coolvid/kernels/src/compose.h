// The picture of a frame from raw outputs and predictions, its distance from the target, and the derivatives of both.
//
// One or two rows of the picture are made, blended and averaged at a time, so that nothing of the picture's size lies
// between raw outputs and planes.
#pragma once
#include <algorithm>
#include <cstddef>

#include "pool.h"
#include "simd.h"

namespace coolvid {

struct ComposeShape {
  int height, width, n_predictions;
  bool subsampled;  // 4:2:0: planes 1 and 2 are means of 2 x 2, the last row and column counting twice at an odd edge
  float gain[3], offset[3];
  size_t pixels() const { return static_cast<size_t>(height) * width; }
  int n_raw() const { return 3 + n_predictions; }
};

class Compose {
 public:
  Compose(const ComposeShape& shape, const float* raw, std::vector<const float*> predictions, Pool& pool)
      : s_(shape), raw_(raw), predictions_(std::move(predictions)), pool_(pool) {}

  // planes[0..2]: [H][W], and for 4:2:0 [ceil(H / 2)][ceil(W / 2)] for the last two.
  void forward(const std::vector<float*>& planes) {
    bands([&](int y0, int y1, float* rows) {
      for (int c = 0; c < 3; c++)
        for (int y = y0; y < y1; y += 2) {
          bool halved = s_.subsampled && c;
          float *first = halved ? rows : planes[c] + at(y), *second = halved ? rows + s_.width : first + s_.width;
          picture_row(c, y, first);
          if (y + 1 < y1) picture_row(c, y + 1, second);
          if (halved) mean_row(first, y + 1 < y1 ? second : first, planes[c] + y / 2 * half_width());
        }
    });
  }

  // d_planes as planes -> d_raw [n_raw][H][W], d_predictions [3][H][W] each (none, or one for each prediction).
  void backward(const std::vector<const float*>& d_planes, float* d_raw, const std::vector<float*>& d_predictions) {
    bands([&](int y0, int y1, float* row) {
      for (int y = y0; y < y1; y++) {
        for (int k = 3; k < s_.n_raw(); k++) std::fill_n(d_raw + k * s_.pixels() + at(y), s_.width, 0.f);
        for (int c = 0; c < 3; c++) {
          const float* d = d_planes[c] + at(y);
          if (s_.subsampled && c) spread_row(d_planes[c] + y / 2 * half_width(), y, row), d = row;
          row_backward(c, y, d, d_raw, d_predictions);
        }
        for (int k = 3; k < s_.n_raw(); k++) mask_row(raw_ + k * s_.pixels() + at(y), d_raw + k * s_.pixels() + at(y));
      }
    });
  }

  // Sum of (picture within [0, 1] - target)^2 over all planes, and its derivatives times `scale`, as though the picture
  // had not been limited: they lead back inside. Planes and derivatives as above.
  double squared_error(const std::vector<const float*>& target, float scale, float* d_raw,
                       const std::vector<float*>& d_predictions) {
    std::vector<double> sums((s_.height + BAND - 1) / BAND);
    bands([&](int y0, int y1, float* rows) {
      for (int y = y0; y < y1; y += 2) {
        int end = std::min(y + 2, y1);
        for (int k = 3; k < s_.n_raw(); k++) std::fill_n(d_raw + k * s_.pixels() + at(y), (end - y) * s_.width, 0.f);
        for (int c = 0; c < 3; c++) {
          for (int i = y; i < end; i++) picture_row(c, i, rows + (i - y) * s_.width);
          sums[y0 / BAND] += s_.subsampled && c ? halved_error(y, end, rows, target[c] + y / 2 * half_width(), scale)
                                                : row_error(rows, target[c] + at(y), scale, (end - y) * s_.width);
          for (int i = y; i < end; i++) row_backward(c, i, rows + (i - y) * s_.width, d_raw, d_predictions);
        }
        for (int i = y; i < end; i++)
          for (int k = 3; k < s_.n_raw(); k++) mask_row(raw_ + k * s_.pixels() + at(i), d_raw + k * s_.pixels() + at(i));
      }
    });
    double total = 0;
    for (double sum : sums) total += sum;
    return total;
  }

 private:
  static constexpr int BAND = 16;  // rows picked up at a time

  size_t at(int y) const { return static_cast<size_t>(y) * s_.width; }
  size_t half_width() const { return static_cast<size_t>(s_.width + 1) / 2; }
  const float* plane(const float* base, int c, int y) const { return base + c * s_.pixels() + at(y); }

  template <class F>
  void bands(F&& f) {
    pool_.run((s_.height + BAND - 1) / BAND, [&](int i, int) {
      std::vector<float> rows(3 * s_.width + 1);
      f(i * BAND, std::min(s_.height, (i + 1) * BAND), rows.data());
    });
  }

  static float trust(float raw) { return std::min(std::max(raw + 0.5f, 0.f), 1.f); }

  void picture_row(int c, int y, float* __restrict out) {
    const float* __restrict r = plane(raw_, c, y);
    if (s_.n_predictions == 0) {
      float gain = s_.gain[c], offset = s_.offset[c];
      for (int x = 0; x < s_.width; x++) out[x] = r[x] * gain + offset;
      return;
    }
    const float *__restrict a = plane(raw_, 3, y), *__restrict p = plane(predictions_[0], c, y);
    if (s_.n_predictions == 1) {
      for (int x = 0; x < s_.width; x++) out[x] = r[x] + trust(a[x]) * p[x];
      return;
    }
    const float *__restrict b = plane(raw_, 4, y), *__restrict q = plane(predictions_[1], c, y);
    for (int x = 0; x < s_.width; x++) out[x] = r[x] + trust(a[x]) * (q[x] + trust(b[x]) * (p[x] - q[x]));
  }

  void mean_row(const float* __restrict first, const float* __restrict second, float* __restrict out) {
    int whole = s_.width / 2;
    for (int x = 0; x < whole; x++)
      out[x] = 0.25f * ((first[2 * x] + first[2 * x + 1]) + (second[2 * x] + second[2 * x + 1]));
    if (s_.width % 2) out[whole] = 0.5f * (first[2 * whole] + second[2 * whole]);
  }

  // The transpose of mean_row for one of its rows: what reaches each pixel of row y.
  void spread_row(const float* __restrict d, int y, float* __restrict out) {
    float share = s_.height % 2 && y == s_.height - 1 ? 0.5f : 0.25f;
    int whole = s_.width / 2;
    for (int x = 0; x < whole; x++) out[2 * x] = out[2 * x + 1] = share * d[x];
    if (s_.width % 2) out[2 * whole] = 2.f * share * d[whole];
  }

  // Replaces n samples by the derivatives of their squared errors, limited, times scale; returns the sum of the errors.
  static double row_error(float* __restrict x, const float* __restrict target, float scale, int n) {
    vf sum = {};
    double total = 0;
    int i = 0;
    for (; i + VL <= n; i += VL) {
      vf d = vmin(splat(1.f), vmax(splat(0.f), load(x + i))) - load(target + i);  // in this order NaN stays NaN
      sum += d * d;
      store(x + i, 2.f * scale * d);
    }
    for (; i < n; i++) {
      float d = std::min(std::max(x[i], 0.f), 1.f) - target[i];
      total += static_cast<double>(d) * d;
      x[i] = 2.f * scale * d;
    }
    return total + hsum(sum);
  }

  // The same for rows y .. end - 1 of a plane that the target has at half the size.
  double halved_error(int y, int end, float* rows, const float* target, float scale) {
    float* mean = rows + 2 * s_.width;
    mean_row(rows, end - y == 2 ? rows + s_.width : rows, mean);
    double sum = row_error(mean, target, scale, static_cast<int>(half_width()));
    for (int i = y; i < end; i++) spread_row(mean, i, rows + (i - y) * s_.width);
    return sum;
  }

  void row_backward(int c, int y, const float* __restrict d, float* d_raw, const std::vector<float*>& d_predictions) {
    float* __restrict dr = d_raw + c * s_.pixels() + at(y);
    float gain = s_.n_predictions ? 1.f : s_.gain[c];
    for (int x = 0; x < s_.width; x++) dr[x] = gain * d[x];
    if (s_.n_predictions == 0) return;
    const float *__restrict a = plane(raw_, 3, y), *__restrict p = plane(predictions_[0], c, y);
    float *__restrict da = d_raw + 3 * s_.pixels() + at(y);
    float *__restrict dp = d_predictions.empty() ? nullptr : d_predictions[0] + c * s_.pixels() + at(y);
    if (s_.n_predictions == 1) {
      for (int x = 0; x < s_.width; x++) da[x] += d[x] * p[x];
      if (dp)
        for (int x = 0; x < s_.width; x++) dp[x] = d[x] * trust(a[x]);
      return;
    }
    const float *__restrict b = plane(raw_, 4, y), *__restrict q = plane(predictions_[1], c, y);
    float* __restrict db = d_raw + 4 * s_.pixels() + at(y);
    for (int x = 0; x < s_.width; x++) {
      float difference = p[x] - q[x];
      da[x] += d[x] * (q[x] + trust(b[x]) * difference);
      db[x] += d[x] * trust(a[x]) * difference;
    }
    if (!dp) return;
    float* __restrict dq = d_predictions[1] + c * s_.pixels() + at(y);
    for (int x = 0; x < s_.width; x++) {
      float both = d[x] * trust(a[x]), first = both * trust(b[x]);
      dp[x] = first, dq[x] = both - first;
    }
  }

  // No derivative where trust() is cut off.
  void mask_row(const float* __restrict raw, float* __restrict d) {
    for (int x = 0; x < s_.width; x++) d[x] = raw[x] >= -0.5f && raw[x] <= 0.5f ? d[x] : 0.f;
  }

  const ComposeShape& s_;
  const float* raw_;
  std::vector<const float*> predictions_;
  Pool& pool_;
};

// Sum of (a - b)^2 over n samples; difference [n] = a - b.
inline double squared_error(Pool& pool, const float* a, const float* b, float* difference, size_t n) {
  constexpr size_t CHUNK = 1 << 14;
  std::vector<double> sums((n + CHUNK - 1) / CHUNK);
  pool.run(static_cast<int>(sums.size()), [&](int chunk, int) {
    size_t i = chunk * CHUNK, end = std::min(n, i + CHUNK);
    vf sum = {};
    for (; i + VL <= end; i += VL) {
      vf d = load(a + i) - load(b + i);
      sum += d * d;
      store(difference + i, d);
    }
    double total = hsum(sum);
    for (; i < end; i++) {
      difference[i] = a[i] - b[i];
      total += static_cast<double>(difference[i]) * difference[i];
    }
    sums[chunk] = total;
  });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

}  // namespace coolvid
