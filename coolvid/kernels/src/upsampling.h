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
      size_t n = (sizes.size() - i) * static_cast<size_t>(level.height) * level.stride;
      level.values.resize(n), level.gradient.resize(n);
      levels_.push_back(std::move(level));
    }
    for (int t = 0; t < pool_.threads(); t++)
      scratch_.emplace_back(6 * row_size() + 2 * static_cast<size_t>(levels_[0].height) * row_size());
    for (int p = 0; p < 2; p++)
      for (int d = -reach_; d <= reach_; d++) {
        int j = p + k_ / 2 - 1 - 2 * d;
        if (j >= 0 && j < k_) phases_[p].push_back({d, j});
      }
  }

  int grids() const { return static_cast<int>(levels_.size()); }
  std::pair<int, int> size(int g) const { return {levels_[g].height, levels_[g].width}; }
  int half() const { return k_ / 2; }
  int pre_half() const { return (kp_ + 1) / 2; }

  // up [n - 1][k / 2], pre [n - 1][(kp + 1) / 2]: filters of step s, from grid s + 1 to grid s. out [n][H][W].
  void forward(const std::vector<const float*>& latents, const float* up, const float* pre, float* out) {
    int n = grids();
    unfold(up, pre);
    copy_in(levels_[n - 1], latents[n - 1]);
    for (int s = n - 2; s >= 0; s--)
      pool_.run(n - s, [&](int j, int thread) {
        if (j == 0) pre_forward(s, latents[s], scratch_[thread].data());
        else up_forward(s, j - 1, scratch_[thread].data());
      });
    pool_.run(n, [&](int j, int) {
      Level& level = levels_[0];
      for (int y = 0; y < level.height; y++)
        std::memcpy(out + (static_cast<size_t>(j) * level.height + y) * level.width, level.row(level.values, j, y),
                    level.width * sizeof(float));
    });
  }

  // d(loss)/d(out) -> d(loss)/d(latents), which is stored, and d(loss)/d(filters), for the last forward().
  void backward(const std::vector<const float*>& latents, const float* d_out, const std::vector<float*>& d_latents,
                float* d_up, float* d_pre) {
    int n = grids();
    pool_.run(n, [&](int j, int) {
      Level& level = levels_[0];
      for (int y = 0; y < level.height; y++)
        std::memcpy(level.row(level.gradient, j, y),
                    d_out + (static_cast<size_t>(j) * level.height + y) * level.width, level.width * sizeof(float));
    });
    for (int s = 0; s + 1 < n; s++) {
      std::vector<float> taps(static_cast<size_t>(n - s) * 16);
      pool_.run(n - s, [&](int j, int thread) {
        float* t = taps.data() + j * 16;
        if (j == 0) pre_backward(s, latents[s], d_latents[s], scratch_[thread].data(), t);
        else up_backward(s, j - 1, scratch_[thread].data(), t);
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
      std::memcpy(d_latents[n - 1] + static_cast<size_t>(y) * last.width, last.row(last.gradient, 0, y),
                  last.width * sizeof(float));
  }

 private:
  struct Level {
    int height, width, stride;
    Buffer<float> values, gradient;
    float* row(Buffer<float>& b, int plane, int y) { return b.data() + (static_cast<size_t>(plane) * height + y) * stride; }
  };
  static constexpr int MARGIN = 32;

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

  void copy_in(Level& level, const float* from) {
    for (int y = 0; y < level.height; y++)
      std::memcpy(level.row(level.values, 0, y), from + static_cast<size_t>(y) * level.width, level.width * sizeof(float));
  }

  // Source rows of output row r and their taps: f(row clamped to the picture, tap index).
  template <class F>
  void sources(int r, int height, F&& f) {
    for (int j = 0; j < k_; j++) {
      int twice = r + k_ / 2 - 1 - j;
      if (twice & 1) continue;
      int i = twice >> 1;
      f(i < 0 ? 0 : i >= height ? height - 1 : i, j);
    }
  }

  // The vertical pass of one output row into v (MARGIN floats of room before it), its ends replicated.
  void vertical(int s, int plane, int r, float* v) {
    Level& coarse = levels_[s + 1];
    const float* taps = up_.data() + s * k_;
    const float* rows[8];
    float weights[8];
    int n = 0;
    sources(r, coarse.height, [&](int row, int j) { rows[n] = coarse.row(coarse.values, plane, row), weights[n++] = taps[j]; });
    for (int x = 0; x < coarse.width; x += VL) {
      vf sum = {};
      for (int t = 0; t < n; t++) sum += weights[t] * load(rows[t] + x);
      store(v + x, sum);
    }
    for (int i = 1; i <= reach_ + 1; i++) v[-i] = v[0];
    for (int i = 0; i < reach_ + VL; i++) v[coarse.width + i] = v[coarse.width - 1];
  }

  void up_forward(int s, int plane, float* scratch) {
    Level& fine = levels_[s];
    float *v = scratch + MARGIN, *out = scratch + row_size() + MARGIN;
    const float* taps = up_.data() + s * k_;
    for (int r = 0; r < fine.height; r++) {
      vertical(s, plane, r, v);
      for (int x = 0; 2 * x < fine.width; x += VL) {
        vf even = {}, odd = {};
        for (auto [d, j] : phases_[0]) even += taps[j] * load(v + x + d);
        for (auto [d, j] : phases_[1]) odd += taps[j] * load(v + x + d);
        vi low = lanes() >> 1, side = (lanes() & 1) * VL;
        store(out + 2 * x, __builtin_shuffle(even, odd, low + side));
        store(out + 2 * x + VL, __builtin_shuffle(even, odd, low + side + VL / 2));
      }
      std::memcpy(fine.row(fine.values, plane + 1, r), out, fine.width * sizeof(float));
    }
  }

  void up_backward(int s, int plane, float* scratch, float* d_taps) {
    Level &fine = levels_[s], &coarse = levels_[s + 1];
    size_t n = row_size();
    float *v = scratch + MARGIN, *d = scratch + n + MARGIN, *even = scratch + 2 * n + MARGIN;
    float *odd = scratch + 3 * n + MARGIN, *back = scratch + 4 * n + MARGIN;
    std::memset(scratch + n, 0, 4 * n * sizeof(float));
    const float* taps = up_.data() + s * k_;
    vf acc[16] = {};
    for (int y = 0; y < coarse.height; y++) std::memset(coarse.row(coarse.gradient, plane, y), 0, coarse.stride * sizeof(float));
    for (int r = 0; r < fine.height; r++) {
      vertical(s, plane, r, v);
      std::memcpy(d, fine.row(fine.gradient, plane + 1, r), fine.width * sizeof(float));
      for (int x = 0; 2 * x < fine.width; x += VL) {
        vf a = load(d + 2 * x), b = load(d + 2 * x + VL);
        vf e = __builtin_shuffle(a, b, lanes() * 2), o = __builtin_shuffle(a, b, lanes() * 2 + 1);
        store(even + x, e), store(odd + x, o);
        for (auto [k, j] : phases_[0]) acc[j] += e * load(v + x + k);
        for (auto [k, j] : phases_[1]) acc[j] += o * load(v + x + k);
      }
      for (int x = -VL; x < coarse.width + reach_; x += VL) {
        vf sum = {};
        for (auto [k, j] : phases_[0]) sum += taps[j] * load(even + x - k);
        for (auto [k, j] : phases_[1]) sum += taps[j] * load(odd + x - k);
        store(back + x, sum);
      }
      for (int i = 1; i <= reach_; i++) back[0] += back[-i], back[coarse.width - 1] += back[coarse.width - 1 + i];
      for (int i = 0; i < VL; i++) back[coarse.width + i] = 0.f;
      sources(r, coarse.height, [&](int row, int j) {
        const float* c = coarse.row(coarse.values, plane, row);
        float* g = coarse.row(coarse.gradient, plane, row);
        for (int x = 0; x < coarse.width; x += VL) {
          vf b = load(back + x);
          acc[j] += b * load(c + x);
          store(g + x, load(g + x) + taps[j] * b);
        }
      });
    }
    for (int j = 0; j < k_; j++) d_taps[j] = hsum(acc[j]);
  }

  // The picture [h][w] filtered vertically with zero borders, rows of row_size() with zero margins.
  void pre_vertical(int s, const float* in, size_t stride, float* out) {
    Level& level = levels_[s];
    const float* taps = pre_.data() + s * kp_;
    for (int y = 0; y < level.height; y++) {
      float* to = out + y * row_size() + MARGIN;
      std::memset(to - MARGIN, 0, row_size() * sizeof(float));
      for (int j = 0; j < kp_; j++) {
        int from = y + j - kp_ / 2;
        if (from < 0 || from >= level.height) continue;
        const float* row = in + from * stride;
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
      float* out = level.row(level.values, 0, y);
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
      std::memcpy(line, level.row(level.gradient, 0, y), level.width * sizeof(float));
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
      const float *t = tall + y * n + MARGIN, *g = level.row(level.gradient, 0, y);
      float* out = d_latent + static_cast<size_t>(y) * level.width;
      for (int x = 0; x < level.width; x++) out[x] = g[x] + t[x];
    }
  }

  int k_, kp_, reach_;
  Pool& pool_;
  std::vector<Level> levels_;
  std::vector<Buffer<float>> scratch_;
  std::vector<std::pair<int, int>> phases_[2];  // (distance of the source column, tap) of even and odd outputs
  std::vector<float> up_, pre_;
};

}  // namespace coolvid
