// Rate of all latents under the auto-regressive model, with its gradients in the same pass.
//
// Contexts are gathered as shifted rows, never stored; the multi-layer perceptron runs on blocks of LD pixels;
// the Laplace mass is evaluated in closed form. Rows are cut into chunks; what a chunk adds to rows above its
// own goes into a halo that is merged in chunk order.
#pragma once
#include <stdexcept>

#include "linear.h"
#include "pool.h"

namespace coolvid {

struct ArmShape {
  int n_spatial, n_features, n_hidden;
  bool stabiliser;
  std::vector<int> dy, dx;  // spatial neighbours, dy in -4..0
  int width() const { return n_spatial + n_features; }
  int parameters() const {
    int c = width();
    return n_hidden * (c * c + c) + (2 * c + 2) * (stabiliser ? 2 : 1);
  }
};

struct GridShape {
  int height, width, log2;
  int map;  // index of its IFCE map, -1 for none
};

// One IFCE map: `inputs` are indices of coarser grids, finest first; parameters are weight [n][max(1, inputs)], bias [n].
struct MapShape {
  int height, width, log2;  // of the map's own (next coarser) resolution
  std::vector<int> inputs;
  int columns() const { return std::max<int>(1, inputs.size()); }
};

class ArmRate {
 public:
  ArmRate(ArmShape shape, std::vector<GridShape> grids, std::vector<MapShape> maps, int threads)
      : shape_(std::move(shape)), grids_(std::move(grids)), maps_(std::move(maps)), pool_(shared_pool(threads)) {
    if (shape_.width() > MAX_WIDTH || shape_.n_hidden > MAX_HIDDEN) throw std::invalid_argument("ARM too wide or deep");
    for (size_t g = 0; g < grids_.size(); g++) {
      auto& grid = grids_[g];
      Plane plane;
      plane.stride = (grid.width + 15) / 16 * 16 + 2 * PAD + 16;
      plane.values.resize(static_cast<size_t>(grid.height + TOP) * plane.stride);
      plane.gradient.resize(static_cast<size_t>(grid.height + TOP) * plane.stride);
      planes_.push_back(std::move(plane));
      int rows = std::max(2, CHUNK_PIXELS / grid.width / 2 * 2);
      for (int y = 0; y < grid.height; y += rows)
        chunks_.push_back({static_cast<int>(g), y, std::min(grid.height, y + rows), 0.0, {}, {}});
    }
    for (auto& chunk : chunks_) {
      chunk.gradient.resize(shape_.parameters());
      chunk.halo.resize(static_cast<size_t>(TOP) * planes_[chunk.grid].stride);
    }
    for (auto& map : maps_) {
      Features f;
      f.stride = (map.width + 15) / 16 * 16 + 32;
      f.values.resize(static_cast<size_t>(shape_.n_features) * map.height * f.stride);
      f.gradient.resize(static_cast<size_t>(shape_.n_features) * map.height * f.stride);
      features_.push_back(std::move(f));
    }
    scratch_.resize(pool_.threads());
    for (auto& s : scratch_) s.resize((2 * MAX_HIDDEN + 5) * MAX_WIDTH * LD + (shape_.parameters() + 8) * VL);
  }

  int parameters() const { return shape_.parameters(); }
  const std::vector<GridShape>& grids() const { return grids_; }
  int map_parameters() const {
    int n = 0;
    for (auto& map : maps_) n += shape_.n_features * (map.columns() + 1);
    return n;
  }

  // Bits of each grid into rates [grids]; with `gradients`, d(total bits) by latents, ARM and IFCE parameters.
  // bits: per-latent cost of each grid, or empty. weights: of each latent's bits in that total, or empty for 1.
  // scale: of all derivatives.
  void run(const std::vector<const float*>& latents, const float* arm, const float* ifce, double* rates,
           bool gradients, const std::vector<float*>& d_latents, float* d_arm, float* d_ifce,
           const std::vector<float*>& bits, const std::vector<const float*>& weights, float scale) {
    weights_ = weights, scale_ = scale;
    prepare(latents, arm, gradients);
    map_forward(ifce);
    pool_.run(static_cast<int>(chunks_.size()),
              [&](int i, int thread) { chunk(chunks_[i], scratch_[thread], arm, gradients, bits); });
    for (size_t g = 0; g < grids_.size(); g++) rates[g] = 0;
    for (auto& c : chunks_) rates[c.grid] += c.bits;
    if (!gradients) return;
    reduce(d_arm);
    map_backward(ifce, d_ifce);
    pool_.run(static_cast<int>(grids_.size()), [&](int g, int) {
      for (int y = 0; y < grids_[g].height; y++)
        std::memcpy(d_latents[g] + static_cast<size_t>(y) * grids_[g].width, planes_[g].row(planes_[g].gradient, y),
                    grids_[g].width * sizeof(float));
    });
  }

 private:
  static constexpr int PAD = 16, TOP = 4, MAX_WIDTH = 104, MAX_HIDDEN = 8, CHUNK_PIXELS = 4096;
  struct Plane {
    int stride;
    Buffer<float> values, gradient;
    float* row(Buffer<float>& b, int y) { return b.data() + static_cast<size_t>(y + TOP) * stride + PAD; }
  };
  struct Features {
    int stride;
    Buffer<float> values, gradient;
  };
  struct Chunk {
    int grid, y0, y1;
    double bits;
    Buffer<float> gradient, halo;
  };

  void prepare(const std::vector<const float*>& latents, const float* arm, bool gradients) {
    int c = shape_.width();
    transposed_.resize(static_cast<size_t>(shape_.n_hidden * c * c + 4 * c) + 1);
    float* t = transposed_.data();
    auto transpose = [&](const float* w, int rows) {
      for (int o = 0; o < rows; o++)
        for (int i = 0; i < c; i++) t[i * rows + o] = w[o * c + i];
      t += rows * c;
    };
    for (int l = 0; l < shape_.n_hidden; l++) transpose(arm + l * (c * c + c), c);
    const float* output = arm + shape_.n_hidden * (c * c + c);
    transpose(output, 2);
    if (shape_.stabiliser) transpose(output + 2 * c + 2, 2);
    pool_.run(static_cast<int>(grids_.size()), [&](int g, int) {
      for (int y = 0; y < grids_[g].height; y++)
        std::memcpy(planes_[g].row(planes_[g].values, y), latents[g] + static_cast<size_t>(y) * grids_[g].width,
                    grids_[g].width * sizeof(float));
      if (gradients) planes_[g].gradient.clear();
    });
  }

  int band_rows(const MapShape& map) const {
    int s = 5;
    for (int g : map.inputs) s = std::max(s, grids_[g].log2 - map.log2);
    return 1 << s;
  }

  // Calls f(band, first row, end row) for bands of the map whose rows share no row of a coarser grid.
  template <class F>
  void bands(const MapShape& map, F&& f) {
    int rows = band_rows(map);
    pool_.run((map.height + rows - 1) / rows, [&](int i, int) { f(i, i * rows, std::min(map.height, (i + 1) * rows)); });
  }

  void map_forward(const float* parameters) {
    for (size_t m = 0; m < maps_.size(); m++) {
      auto& map = maps_[m];
      auto& f = features_[m];
      int n = shape_.n_features, columns = map.columns();
      const float *w = parameters, *b = parameters + n * columns;
      bands(map, [&](int, int y0, int y1) {
        std::vector<float> u(map.width);
        for (int y = y0; y < y1; y++) {
          for (int k = 0; k < n; k++) {
            float* out = feature_row(f, map, f.values, k, y);
            std::fill(out, out + map.width, b[k]);
          }
          for (size_t c = 0; c < map.inputs.size(); c++) {
            nearest_row(map, map.inputs[c], y, u.data());
            for (int k = 0; k < n; k++) {
              float* out = feature_row(f, map, f.values, k, y);
              float wk = w[k * columns + c];
              for (int x = 0; x < map.width; x++) out[x] += wk * u[x];
            }
          }
        }
      });
      parameters += n * (columns + 1);
    }
  }

  float* feature_row(Features& f, const MapShape& map, Buffer<float>& b, int k, int y) {
    return b.data() + (static_cast<size_t>(k) * map.height + y) * f.stride;
  }

  void nearest_row(const MapShape& map, int grid, int y, float* out) {
    int s = grids_[grid].log2 - map.log2;
    const float* in = planes_[grid].row(planes_[grid].values, y >> s);
    for (int x = 0; x < map.width; x++) out[x] = in[x >> s];
  }

  void map_backward(const float* parameters, float* gradient) {
    for (size_t m = 0; m < maps_.size(); m++) {
      auto& map = maps_[m];
      auto& f = features_[m];
      int n = shape_.n_features, columns = map.columns(), size = n * (columns + 1);
      int n_bands = (map.height + band_rows(map) - 1) / band_rows(map);
      std::vector<double> partial(static_cast<size_t>(n_bands) * size);
      bands(map, [&](int band, int y0, int y1) {
        std::vector<float> u(map.width), du(map.width);
        double* d = partial.data() + static_cast<size_t>(band) * size;
        for (int y = y0; y < y1; y++) {
          for (size_t c = 0; c < map.inputs.size(); c++) {
            nearest_row(map, map.inputs[c], y, u.data());
            std::fill(du.begin(), du.end(), 0.f);
            for (int k = 0; k < n; k++) {
              const float* g = feature_row(f, map, f.gradient, k, y);
              d[k * columns + c] += dot(g, u.data(), map.width);
              float wk = parameters[k * columns + c];
              for (int x = 0; x < map.width; x++) du[x] += wk * g[x];
            }
            int s = grids_[map.inputs[c]].log2 - map.log2;
            Plane& plane = planes_[map.inputs[c]];
            float* out = plane.row(plane.gradient, y >> s);
            for (int x = 0; x < map.width; x++) out[x >> s] += du[x];
          }
          for (int k = 0; k < n; k++) {
            const float* g = feature_row(f, map, f.gradient, k, y);
            float s = 0;
            for (int x = 0; x < map.width; x++) s += g[x];
            d[n * columns + k] += s;
          }
        }
      });
      for (int i = 0; i < size; i++) {
        double s = 0;
        for (int b = 0; b < n_bands; b++) s += partial[static_cast<size_t>(b) * size + i];
        gradient[i] = static_cast<float>(s);
      }
      parameters += size, gradient += size;
    }
  }

  static float dot(const float* a, const float* b, int n) {
    vf s = {};
    int i = 0;
    for (; i + VL <= n; i += VL) s += load(a + i) * load(b + i);
    float r = hsum(s);
    for (; i < n; i++) r += a[i] * b[i];
    return r;
  }

  void reduce(float* d_arm) {
    int n = shape_.parameters();
    std::vector<double> sum(n);
    for (auto& c : chunks_) {
      for (int i = 0; i < n; i++) sum[i] += c.gradient[i];
      if (c.y0 == 0) continue;
      Plane& plane = planes_[c.grid];
      for (int r = 0; r < TOP; r++) {
        int y = c.y0 - TOP + r;
        float *to = plane.row(plane.gradient, y) - PAD, *from = c.halo.data() + static_cast<size_t>(r) * plane.stride;
        for (int x = 0; x < plane.stride; x++) to[x] += from[x];
      }
    }
    for (int i = 0; i < n; i++) d_arm[i] = static_cast<float>(sum[i]);
  }

  void chunk(Chunk& c, Buffer<float>& scratch, const float* arm, bool gradients, const std::vector<float*>& bits) {
    int width = grids_[c.grid].width;
    float* acc = scratch.data() + (2 * MAX_HIDDEN + 5) * MAX_WIDTH * LD;
    c.bits = 0;
    if (gradients) {
      std::memset(acc, 0, static_cast<size_t>(shape_.parameters()) * VL * sizeof(float));
      c.halo.clear();
    }
    for (int y = c.y0; y < c.y1; y++)
      for (int x = 0; x < width; x += LD)
        block(c, y, x, std::min(LD, width - x), scratch.data(), acc, arm, gradients,
                 bits.empty() ? nullptr : bits[c.grid] + static_cast<size_t>(y) * width + x);
    if (gradients)
      for (int i = 0; i < shape_.parameters(); i++) c.gradient[i] = hsum(load(acc + i * VL));
  }

  void gather(const Chunk& c, int y, int x0, int pixels, float* x) {
    Plane& plane = planes_[c.grid];
    for (int k = 0; k < shape_.n_spatial; k++) {
      const float* from = plane.row(plane.values, y + shape_.dy[k]) + x0 + shape_.dx[k];
      for (int n = 0; n < pixels; n += VL) store(x + k * LD + n, load(from + n));
    }
    int m = grids_[c.grid].map;
    float* out = x + shape_.n_spatial * LD;
    if (m < 0) {
      std::memset(out, 0, static_cast<size_t>(shape_.n_features) * LD * sizeof(float));
      return;
    }
    for (int k = 0; k < shape_.n_features; k++, out += LD) {
      const float* from = feature_row(features_[m], maps_[m], features_[m].values, k, y >> 1) + (x0 >> 1);
      for (int n = 0; n < pixels; n += VL) store(out + n, twice(load(from + n / 2)));
    }
  }

  void scatter(Chunk& c, int y, int x0, int pixels, const float* dx) {
    Plane& plane = planes_[c.grid];
    for (int k = 0; k < shape_.n_spatial; k++) {
      float* to = gradient_row(c, plane, y + shape_.dy[k]) + x0 + shape_.dx[k];
      for (int n = 0; n < pixels; n += VL) store(to + n, load(to + n) + load(dx + k * LD + n));
    }
    int m = grids_[c.grid].map;
    if (m < 0) return;
    const float* from = dx + shape_.n_spatial * LD;
    bool first = (y & 1) == 0;
    for (int k = 0; k < shape_.n_features; k++, from += LD) {
      float* to = feature_row(features_[m], maps_[m], features_[m].gradient, k, y >> 1) + (x0 >> 1);
      for (int n = 0; n < pixels; n += VL) {
        vf t = load(from + n);
        t += swapped_neighbours(t);
        t = even_lanes(t, t);
        for (int i = 0; i < VL / 2; i++) to[n / 2 + i] = t[i] + (first ? 0.f : to[n / 2 + i]);
      }
    }
  }

  float* gradient_row(Chunk& c, Plane& plane, int y) {
    if (c.y0 == 0 || y >= c.y0) return plane.row(plane.gradient, y);
    return c.halo.data() + static_cast<size_t>(y - c.y0 + TOP) * plane.stride + PAD;
  }

  // Bits of a block from o = (mu, raw log scale); with gradients, d(bits) replaces o and is added to the latents'.
  double laplace(Chunk& c, int y, int x0, int pixels, float* o, bool gradients, float* bits, const float* weights) {
    Plane& plane = planes_[c.grid];
    const float* values = plane.row(plane.values, y) + x0;
    float* dy = gradient_row(c, plane, y) + x0;
    vf total = {};
    for (int n = 0; n < (pixels + VL - 1) / VL * VL; n += VL) {
      vf mu = load(o + n), raw = load(o + LD + n) - 4.f;
      vf inv = vexp(-vmin(vmax(raw, splat(-5.f)), splat(5.f)));
      vf d = load(values + n) - mu, u = d + 0.5f, w = d - 0.5f;
      vf hu = 0.5f * vexp(-vabs(u) * inv), hw = 0.5f * vexp(-vabs(w) * inv);
      vf mass = ((u >= 0.f) & (w < 0.f)) ? 1.f - hu - hw : vabs(hu - hw);
      vi valid = (lanes() + n) < pixels, floored = mass < 1.52587890625e-5f;
      mass = floored ? splat(1.52587890625e-5f) : mass;
      vf cost = valid ? -vlog2(mass) : vf{};
      total += cost;
      if (bits)
        for (int i = 0; i < VL && n + i < pixels; i++) bits[n + i] = cost[i];
      if (!gradients) continue;
      vf by_mass = (valid & ~floored) ? -1.44269504f * scale_ / mass : vf{};
      if (weights) {
        vf weight = {};
        std::memcpy(&weight, weights + n, std::min(VL, pixels - n) * sizeof(float));
        by_mass *= weight;
      }
      vf fu = hu * inv, fw = hw * inv;
      vf by_value = by_mass * (fu - fw);
      vf by_raw = ((raw >= -5.f) & (raw <= 5.f)) ? by_mass * (w * fw - u * fu) : vf{};
      store(dy + n, load(dy + n) + by_value);
      store(o + n, -by_value);
      store(o + LD + n, by_raw);
    }
    return hsum(total);
  }

  void block(Chunk& c, int y, int x0, int pixels, float* s, float* acc, const float* arm, bool gradients, float* bits) {
    const int width = shape_.width(), hidden = shape_.n_hidden, plane = width * LD;
    float *x = s, *o = s + (hidden + 1) * plane, *d = o + 2 * LD, *e = d + plane;
    gather(c, y, x0, pixels, x);
    const float* wt = transposed_.data();
    for (int l = 0; l < hidden; l++) {
      const float *in = x + l * plane, *bias = arm + l * (width * width + width) + width * width;
      float* out = x + (l + 1) * plane;
      product(wt, width, width, in, pixels, [&](int m, int n, vf v) {
        store(out + m * LD + n, vmax(v + load(in + m * LD + n) + bias[m], vf{}));
      });
      wt += width * width;
    }
    const float *last = x + hidden * plane, *output = arm + hidden * (width * width + width);
    const float *stabiliser = output + 2 * width + 2, *bias = output + 2 * width;
    product(wt, 2, width, last, pixels, [&](int m, int n, vf v) { store(o + m * LD + n, v + bias[m]); });
    if (shape_.stabiliser)
      product(wt + 2 * width, 2, width, x, pixels, [&](int m, int n, vf v) {
        store(o + m * LD + n, load(o + m * LD + n) + v + stabiliser[2 * width + m]);
      });
    size_t at = static_cast<size_t>(y) * grids_[c.grid].width + x0;
    c.bits += laplace(c, y, x0, pixels, o, gradients, bits, weights_.empty() ? nullptr : weights_[c.grid] + at);
    if (!gradients) return;
    float* acc_output = acc + hidden * (width * width + width) * VL;
    outer(o, 2, last, width, pixels, acc_output);
    row_sums(o, 2, pixels, acc_output + 2 * width * VL);
    if (shape_.stabiliser) {
      outer(o, 2, x, width, pixels, acc_output + (2 * width + 2) * VL);
      row_sums(o, 2, pixels, acc_output + (4 * width + 2) * VL);
    }
    product(output, width, 2, o, pixels, [&](int m, int n, vf v) { store(d + m * LD + n, v); });
    for (int l = hidden; l-- > 0;) {
      const float *out = x + (l + 1) * plane, *w = arm + l * (width * width + width);
      for (int i = 0; i < width; i++)
        for (int n = 0; n < pixels; n += VL)
          store(e + i * LD + n, load(out + i * LD + n) > 0.f ? load(d + i * LD + n) : vf{});
      float* acc_layer = acc + l * (width * width + width) * VL;
      outer(e, width, x + l * plane, width, pixels, acc_layer);
      row_sums(e, width, pixels, acc_layer + width * width * VL);
      product(w, width, width, e, pixels,
                    [&](int m, int n, vf v) { store(d + m * LD + n, v + load(e + m * LD + n)); });
    }
    if (shape_.stabiliser)
      product(stabiliser, width, 2, o, pixels,
                            [&](int m, int n, vf v) { store(d + m * LD + n, v + load(d + m * LD + n)); });
    scatter(c, y, x0, pixels, d);
  }

  ArmShape shape_;
  std::vector<GridShape> grids_;
  std::vector<MapShape> maps_;
  Pool& pool_;
  std::vector<Plane> planes_;
  std::vector<Features> features_;
  std::vector<Chunk> chunks_;
  std::vector<Buffer<float>> scratch_;
  Buffer<float> transposed_;
  std::vector<const float*> weights_;
  float scale_ = 1.f;
};

}  // namespace coolvid
