// Separable x2 upsampling of the latent grids to planes of the finest grid's size, forward and backward.
#pragma once
#include <stdexcept>

#include "linear.h"
#include "pool.h"

namespace coolvid {

class Upsampling {
 public:
  // sizes: (height, width) of each grid, finest first. k: taps of the x2 filter; kp: taps of the pre-filter.
  Upsampling(std::vector<std::pair<int, int>> sizes, int k, int kp, int threads)
      : k_(k), kp_(kp), reach_(k / 4 + 1), pool_(shared_pool(threads)) {
    if (k < 4 || k > 16 || k % 2 || kp < 1 || kp > 15 || kp % 2 == 0) throw std::invalid_argument("filter size");
    for (size_t i = 0; i < sizes.size(); i++) {
      if (i && (sizes[i].first != (sizes[i - 1].first + 1) / 2 || sizes[i].second != (sizes[i - 1].second + 1) / 2))
        throw std::invalid_argument("each grid is half of the finer one, rounded up");
      Level level{sizes[i].first, sizes[i].second, (sizes[i].second + 15) / 16 * 16 + 16, {}, {}};
      size_t n = i ? (sizes.size() - i) * static_cast<size_t>(level.height) * level.stride : 0;
      level.values.resize(n), level.gradient.resize(n);
      levels_.push_back(std::move(level));
    }
    for (int t = 0; t < pool_.threads(); t++)
      scratch_.emplace_back(6 * row_size() + 2 * static_cast<size_t>(levels_[0].height) * row_size());
    for (int p = 0; p < 2; p++) {
      first_tap_[p] = (p + k_ / 2 - 1) % 2;
      first_[p] = (p + k_ / 2 - 1 - first_tap_[p]) / 2;
    }
  }

  int grids() const { return static_cast<int>(levels_.size()); }
  std::pair<int, int> size(int g) const { return {levels_[g].height, levels_[g].width}; }
  int half() const { return k_ / 2; }
  int pre_half() const { return (kp_ + 1) / 2; }

  // up [n - 1][k / 2], pre [n - 1][(kp + 1) / 2]: filters of step s, from grid s + 1 to grid s. out [n][H][W].
  void forward(const std::vector<const float*>& latents, const float* up, const float* pre, float* out) {
    int n = grids();
    out_ = out;
    unfold(up, pre);
    copy_in(n - 1, latents[n - 1]);
    for (int s = n - 2; s >= 0; s--)
      pool_.run(n - s, [&](int j, int thread) {
        if (j == 0) pre_forward(s, latents[s], scratch_[thread].data());
        else with_taps([&](auto t) { up_forward<t>(s, j - 1, scratch_[thread].data()); });
      });
  }

  // d(loss)/d(out) -> d(loss)/d(latents), which is stored, and d(loss)/d(filters), for the last forward().
  void backward(const std::vector<const float*>& latents, const float* d_out, const std::vector<float*>& d_latents,
                float* d_up, float* d_pre) {
    int n = grids();
    d_out_ = d_out;
    for (int s = 0; s + 1 < n; s++) {
      std::vector<float> taps(static_cast<size_t>(n - s) * 16);
      pool_.run(n - s, [&](int j, int thread) {
        float* d_taps = taps.data() + j * 16;
        if (j == 0) pre_backward(s, latents[s], d_latents[s], scratch_[thread].data(), d_taps);
        else with_taps([&](auto t) { up_backward<t>(s, j - 1, scratch_[thread].data(), d_taps); });
      });
      for (int t = 0; t < pre_half(); t++)
        d_pre[s * pre_half() + t] = taps[t] + (t < kp_ / 2 ? taps[kp_ - 1 - t] : 0.f);
      for (int t = 0; t < half(); t++) {
        float sum = 0;
        for (int j = 1; j < n - s; j++) sum += taps[j * 16 + t] + taps[j * 16 + k_ - 1 - t];
        d_up[s * half() + t] = sum;
      }
    }
    Level& last = levels_[n - 1];
    for (int y = 0; y < last.height; y++)
      std::memcpy(d_latents[n - 1] + static_cast<size_t>(y) * last.width, slope_row(n - 1, 0, y), last.width * sizeof(float));
  }

 private:
  struct Level {
    int height, width, stride;
    Buffer<float> values, gradient;
    float* row(Buffer<float>& b, int plane, int y) { return b.data() + (static_cast<size_t>(plane) * height + y) * stride; }
  };
  static constexpr int MARGIN = 32;

  // Row y of a plane of level s, and of its derivative; those of the finest level are the caller's.
  float* value_row(int s, int plane, int y) {
    Level& level = levels_[s];
    return s ? level.row(level.values, plane, y) : out_ + (static_cast<size_t>(plane) * level.height + y) * level.width;
  }
  const float* slope_row(int s, int plane, int y) {
    Level& level = levels_[s];
    return s ? level.row(level.gradient, plane, y) : d_out_ + (static_cast<size_t>(plane) * level.height + y) * level.width;
  }

  // Calls f(number of taps of a phase), a constant.
  template <class F>
  void with_taps(F&& f) {
    switch (k_ / 2) {
      case 2: return f(std::integral_constant<int, 2>{});
      case 3: return f(std::integral_constant<int, 3>{});
      case 4: return f(std::integral_constant<int, 4>{});
      case 5: return f(std::integral_constant<int, 5>{});
      case 6: return f(std::integral_constant<int, 6>{});
      case 7: return f(std::integral_constant<int, 7>{});
      default: return f(std::integral_constant<int, 8>{});
    }
  }

  size_t row_size() const { return levels_[0].stride + 2 * MARGIN + 32; }

  void unfold(const float* up, const float* pre) {
    int steps = grids() - 1;
    up_.assign(static_cast<size_t>(steps) * k_, 0.f);
    pre_.assign(static_cast<size_t>(steps) * kp_, 0.f);
    for (int s = 0; s < steps; s++) {
      for (int t = 0; t < half(); t++) up_[s * k_ + t] = up_[s * k_ + k_ - 1 - t] = up[s * half() + t];
      for (int t = 0; t < pre_half(); t++) pre_[s * kp_ + t] = pre_[s * kp_ + kp_ - 1 - t] = pre[s * pre_half() + t];
    }
  }

  void copy_in(int s, const float* from) {
    for (int y = 0; y < levels_[s].height; y++)
      std::memcpy(value_row(s, 0, y), from + static_cast<size_t>(y) * levels_[s].width, levels_[s].width * sizeof(float));
  }

  // The taps of step s that make outputs of parity p, as a[0], a[2], ...; the first reads first_[p] pixels ahead, each
  // other one pixel less.
  const float* phase(int s, int p) { return up_.data() + s * k_ + first_tap_[p]; }

  // The T source rows of output row r, beyond the border the outermost.
  template <int T>
  void source_rows(int r, int height, int (&rows)[T]) {
    for (int t = 0; t < T; t++) rows[t] = std::min(std::max((r >> 1) + first_[r & 1] - t, 0), height - 1);
  }

  // The vertical pass of one output row into v (MARGIN floats of room before it), its ends replicated.
  template <int T>
  void vertical(int s, int plane, int r, float* v) {
    Level& coarse = levels_[s + 1];
    const float* taps = phase(s, r & 1);
    int rows[T];
    source_rows(r, coarse.height, rows);
    const float* from[T];
    for (int t = 0; t < T; t++) from[t] = value_row(s + 1, plane, rows[t]);
    for (int x = 0; x < coarse.width; x += VL) {
      vf sum = {};
      for (int t = 0; t < T; t++) sum += taps[2 * t] * load(from[t] + x);
      store(v + x, sum);
    }
    for (int i = 1; i <= reach_ + 1; i++) v[-i] = v[0];
    for (int i = 0; i < reach_ + VL; i++) v[coarse.width + i] = v[coarse.width - 1];
  }

  template <int T>
  void up_forward(int s, int plane, float* scratch) {
    Level& fine = levels_[s];
    float *v = scratch + MARGIN, *out = scratch + row_size() + MARGIN;
    const float *a = phase(s, 0), *b = phase(s, 1), *before = v + first_[0], *after = v + first_[1];
    for (int r = 0; r < fine.height; r++) {
      vertical<T>(s, plane, r, v);
      for (int x = 0; 2 * x < fine.width; x += VL) {
        vf even = {}, odd = {};
        for (int t = 0; t < T; t++) even += a[2 * t] * load(before + x - t), odd += b[2 * t] * load(after + x - t);
        store(out + 2 * x, zipped_low(even, odd));
        store(out + 2 * x + VL, zipped_high(even, odd));
      }
      std::memcpy(value_row(s, plane + 1, r), out, fine.width * sizeof(float));
    }
  }

  template <int T>
  void up_backward(int s, int plane, float* scratch, float* d_taps) {
    Level &fine = levels_[s], &coarse = levels_[s + 1];
    size_t n = row_size();
    float *v = scratch + MARGIN, *d = scratch + n + MARGIN, *even = scratch + 2 * n + MARGIN;
    float *odd = scratch + 3 * n + MARGIN, *back = scratch + 4 * n + MARGIN;
    std::memset(scratch + n, 0, 4 * n * sizeof(float));
    const float *a = phase(s, 0), *b = phase(s, 1), *before = v + first_[0], *after = v + first_[1];
    const float *even_from = even - first_[0], *odd_from = odd - first_[1];
    vf across[2][T] = {}, down[2][T] = {};  // derivatives by the taps of both passes and phases
    for (int y = 0; y < coarse.height; y++) std::memset(coarse.row(coarse.gradient, plane, y), 0, coarse.stride * sizeof(float));
    for (int r = 0; r < fine.height; r++) {
      vertical<T>(s, plane, r, v);
      std::memcpy(d, slope_row(s, plane + 1, r), fine.width * sizeof(float));
      for (int x = 0; 2 * x < fine.width; x += VL) {
        vf first = load(d + 2 * x), second = load(d + 2 * x + VL);
        vf e = even_lanes(first, second), o = odd_lanes(first, second);
        store(even + x, e), store(odd + x, o);
        for (int t = 0; t < T; t++) {
          across[0][t] += e * load(before + x - t);
          across[1][t] += o * load(after + x - t);
        }
      }
      for (int x = -VL; x < coarse.width + reach_; x += VL) {
        vf sum = {};
        for (int t = 0; t < T; t++) sum += a[2 * t] * load(even_from + x + t) + b[2 * t] * load(odd_from + x + t);
        store(back + x, sum);
      }
      for (int i = 1; i <= reach_; i++) back[0] += back[-i], back[coarse.width - 1] += back[coarse.width - 1 + i];
      for (int i = 0; i < VL; i++) back[coarse.width + i] = 0.f;
      spread<T>(s, plane, r, back, down[r & 1]);
    }
    for (int p = 0; p < 2; p++)
      for (int t = 0; t < T; t++) d_taps[first_tap_[p] + 2 * t] = hsum(across[p][t] + down[p][t]);
  }

  // The transpose of vertical(): derivatives by its row to those by its source rows and its taps.
  template <int T>
  void spread(int s, int plane, int r, const float* back, vf (&down)[T]) {
    Level& coarse = levels_[s + 1];
    const float *taps = phase(s, r & 1), *values[T];
    float* slopes[T];
    int rows[T];
    source_rows(r, coarse.height, rows);
    for (int t = 0; t < T; t++) values[t] = value_row(s + 1, plane, rows[t]), slopes[t] = coarse.row(coarse.gradient, plane, rows[t]);
    vf sums[T];
    for (int t = 0; t < T; t++) sums[t] = down[t];
    for (int x = 0; x < coarse.width; x += VL) {
      vf b = load(back + x);
      for (int t = 0; t < T; t++) {
        sums[t] += b * load(values[t] + x);
        store(slopes[t] + x, load(slopes[t] + x) + taps[2 * t] * b);
      }
    }
    for (int t = 0; t < T; t++) down[t] = sums[t];
  }

  // The picture [h][w] filtered vertically with zero borders, rows of row_size() with zero margins.
  void pre_vertical(int s, const float* in, size_t stride, float* out) {
    Level& level = levels_[s];
    const float* taps = pre_.data() + s * kp_;
    for (int y = 0; y < level.height; y++) {
      float* __restrict to = out + y * row_size() + MARGIN;
      std::memset(to - MARGIN, 0, row_size() * sizeof(float));
      for (int j = 0; j < kp_; j++) {
        int from = y + j - kp_ / 2;
        if (from < 0 || from >= level.height) continue;
        const float* __restrict row = in + from * stride;
        for (int x = 0; x < level.width; x++) to[x] += taps[j] * row[x];
      }
    }
  }

  void pre_horizontal(int s, const float* row, float* out) {
    const float* taps = pre_.data() + s * kp_;
    for (int x = 0; x < levels_[s].width; x += VL) {
      vf sum = {};
      for (int j = 0; j < kp_; j++) sum += taps[j] * load(row + x + j - kp_ / 2);
      store(out + x, sum);
    }
  }

  void pre_forward(int s, const float* latent, float* scratch) {
    Level& level = levels_[s];
    float *line = scratch + MARGIN, *tall = scratch + 6 * row_size();
    pre_vertical(s, latent, level.width, tall);
    for (int y = 0; y < level.height; y++) {
      pre_horizontal(s, tall + y * row_size() + MARGIN, line);
      const float* own = latent + static_cast<size_t>(y) * level.width;
      float* out = value_row(s, 0, y);
      for (int x = 0; x < level.width; x++) out[x] = own[x] + line[x];
    }
  }

  // The filters are symmetric, so that the transposed filter is the filter itself.
  void pre_backward(int s, const float* latent, float* d_latent, float* scratch, float* d_taps) {
    Level& level = levels_[s];
    size_t n = row_size();
    float *line = scratch + MARGIN, *tall = scratch + 6 * n, *wide = tall + level.height * n;
    pre_vertical(s, latent, level.width, tall);
    vf acc[16] = {};
    for (int y = 0; y < level.height; y++) {
      std::memset(line - MARGIN, 0, n * sizeof(float));
      std::memcpy(line, slope_row(s, 0, y), level.width * sizeof(float));
      const float* t = tall + y * n + MARGIN;
      for (int x = 0; x < level.width; x += VL)
        for (int j = 0; j < kp_; j++) acc[j] += load(line + x) * load(t + x + j - kp_ / 2);
      pre_horizontal(s, line, wide + y * n + MARGIN);
    }
    float extra[16] = {};
    for (int y = 0; y < level.height; y++)
      for (int j = 0; j < kp_; j++) {
        int from = y + j - kp_ / 2;
        if (from < 0 || from >= level.height) continue;
        const float *a = wide + y * n + MARGIN, *b = latent + static_cast<size_t>(from) * level.width;
        int x = 0;
        for (; x + VL <= level.width; x += VL) acc[j] += load(a + x) * load(b + x);
        for (; x < level.width; x++) extra[j] += a[x] * b[x];
      }
    for (int j = 0; j < kp_; j++) d_taps[j] = hsum(acc[j]) + extra[j];
    pre_vertical(s, wide + MARGIN, n, tall);
    for (int y = 0; y < level.height; y++) {
      const float *t = tall + y * n + MARGIN, *g = slope_row(s, 0, y);
      float* out = d_latent + static_cast<size_t>(y) * level.width;
      for (int x = 0; x < level.width; x++) out[x] = g[x] + t[x];
    }
  }

  int k_, kp_, reach_;
  Pool& pool_;
  std::vector<Level> levels_;
  std::vector<Buffer<float>> scratch_;
  int first_tap_[2], first_[2];  // see phase()
  std::vector<float> up_, pre_;
  float* out_ = nullptr;
  const float* d_out_ = nullptr;
};

}  // namespace coolvid
