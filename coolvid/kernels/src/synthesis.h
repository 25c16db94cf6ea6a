// The synthesis: pixel-wise layers first (the head, recomputed in the backward pass), then convolutions over planes
// with replicated borders (the tail), plus the linear stabiliser from input to output.
#pragma once
#include <stdexcept>

#include "linear.h"
#include "pool.h"

namespace coolvid {

struct LayerShape {
  int n_in, n_out, kernel;
  bool residual, relu;
  int weights() const { return n_out * n_in * kernel * kernel; }
  int parameters() const { return weights() + n_out; }
};

// Planes with a border on all sides, wide enough for kernels of up to 7 taps and for vectors that overrun a row.
class Planes {
 public:
  static constexpr int PAD = 16, ROWS = 3;
  Planes() = default;
  Planes(int channels, int height, int width) : height_(height), width_(width) {
    stride_ = (width + 15) / 16 * 16 + 3 * PAD;
    data_.resize(static_cast<size_t>(channels) * (height + 2 * ROWS) * stride_);
  }
  float* row(int c, int y) {
    return data_.data() + (static_cast<size_t>(c) * (height_ + 2 * ROWS) + y + ROWS) * stride_ + PAD;
  }
  // Replicates the border of a finished row (and, at the top and bottom, of the picture).
  void extend(int channels, int y) {
    for (int c = 0; c < channels; c++) {
      float* r = row(c, y);
      for (int i = 1; i <= ROWS; i++) r[-i] = r[0], r[width_ - 1 + i] = r[width_ - 1];
      size_t bytes = (width_ + 2 * ROWS) * sizeof(float);
      for (int i = 1; i <= ROWS; i++) {
        if (y == 0) std::memcpy(row(c, -i) - ROWS, r - ROWS, bytes);
        if (y == height_ - 1) std::memcpy(row(c, y + i) - ROWS, r - ROWS, bytes);
      }
    }
  }
  void clear_tail(int channels, int y) {
    for (int c = 0; c < channels; c++) std::memset(row(c, y) + width_, 0, (stride_ - width_ - PAD) * sizeof(float));
  }

 private:
  int height_ = 0, width_ = 0, stride_ = 0;
  Buffer<float> data_;
};

class Synthesis {
 public:
  Synthesis(std::vector<LayerShape> layers, int n_in, int n_seen, bool stabiliser, int height, int width, int threads)
      : layers_(std::move(layers)), n_in_(n_in), n_seen_(n_seen), stabiliser_(stabiliser), height_(height),
        width_(width), pool_(shared_pool(threads)) {
    while (n_head_ < static_cast<int>(layers_.size()) && layers_[n_head_].kernel == 1) n_head_++;
    int channels = n_in_;
    for (auto& layer : layers_) {
      offsets_.push_back(n_parameters_);
      n_parameters_ += layer.parameters();
      channels = std::max(channels, layer.n_out);
      if (layer.n_out > MAX_CHANNELS || layer.kernel > 7) throw std::invalid_argument("synthesis layer too large");
    }
    offsets_.push_back(n_parameters_);
    n_out_ = layers_.back().n_out;
    if (stabiliser_) n_parameters_ += n_out_ * n_seen_ + n_out_;
    rows_ = std::max(1, CHUNK_PIXELS / width_);
    n_chunks_ = (height_ + rows_ - 1) / rows_;
    int after_head = n_head_ ? layers_[n_head_ - 1].n_out : n_in_;
    planes_.emplace_back(after_head, height_, width_);
    for (size_t l = n_head_; l < layers_.size(); l++) planes_.emplace_back(layers_[l].n_out, height_, width_);
    for (size_t l = n_head_; l < layers_.size(); l++) gradients_.emplace_back(layers_[l].n_out, height_, width_);
    partial_.resize(static_cast<size_t>(n_chunks_) * n_parameters_);
    int blocks = n_in_ + n_out_ + 2 * channels;
    for (int l = 0; l < n_head_; l++) blocks += layers_[l].n_out;
    scratch_size_ = static_cast<size_t>(blocks) * LD;
    row_size_ = static_cast<size_t>((width_ + 15) / 16 * 16 + 6 * 16);
    scratch_.resize(pool_.threads());
    for (auto& s : scratch_)
      s.resize(scratch_size_ + row_size_ * channels + static_cast<size_t>(n_parameters_ + 8) * VL);
  }

  int parameters() const { return n_parameters_; }
  int n_in() const { return n_in_; }
  int n_out() const { return n_out_; }
  size_t pixels() const { return static_cast<size_t>(height_) * width_; }

  // z [n_in][H][W] -> out [n_out][H][W]; keeps what backward() needs.
  void forward(const float* z, const float* parameters, float* out) {
    prepare(parameters);
    each_row([&](int, int y, Buffer<float>& s) {
      head_row(z, parameters, y, s.data(), out);
      planes_[0].extend(layers_.size() > static_cast<size_t>(n_head_) ? channels(0) : 0, y);
    });
    for (size_t t = 0; t + n_head_ < layers_.size(); t++)
      each_row([&](int, int y, Buffer<float>&) { tail_row(t, parameters, y, out); });
  }

  // d(loss)/d(out) -> d(loss)/d(z) and d(loss)/d(parameters), for the z and parameters of the last forward().
  void backward(const float* z, const float* parameters, const float* d_out, float* d_z, float* d_parameters) {
    int n_tail = static_cast<int>(layers_.size()) - n_head_;
    std::memset(partial_.data(), 0, partial_.size() * sizeof(float));
    if (n_tail)
      each_row([&](int, int y, Buffer<float>&) {
        for (int c = 0; c < n_out_; c++)
          masked_copy(gradients_.back().row(c, y), d_out + (static_cast<size_t>(c) * height_ + y) * width_,
                      layers_.back().relu ? planes_.back().row(c, y) : nullptr);
        gradients_.back().clear_tail(n_out_, y);
      });
    for (int t = n_tail - 1; t >= 0; t--)
      each_chunk([&](int chunk, int y0, int y1, Buffer<float>& s) {
        float* acc = accumulators(s);
        clear(acc, n_head_ + t, n_head_ + t + 1);
        for (int y = y0; y < y1; y++) {
          tail_weights(t, y, acc + offsets_[n_head_ + t] * VL);
          tail_backward(t, y, s.data() + scratch_size_);
          if (t == 0) continue;
          const auto& before = layers_[n_head_ + t - 1];
          for (int c = 0; c < before.n_out; c++)
            masked_copy(gradients_[t - 1].row(c, y), line(s, c), before.relu ? planes_[t].row(c, y) : nullptr);
          gradients_[t - 1].clear_tail(before.n_out, y);
        }
        collect(chunk, acc, n_head_ + t, n_head_ + t + 1);
      });
    each_chunk([&](int chunk, int y0, int y1, Buffer<float>& s) {
      float* acc = accumulators(s);
      clear(acc, 0, n_head_);
      clear_stabiliser(acc);
      for (int y = y0; y < y1; y++) {
        if (n_tail) tail_backward(0, y, s.data() + scratch_size_);
        head_backward(z, parameters, d_out, d_z, y, s, acc, n_tail > 0);
      }
      collect(chunk, acc, 0, n_head_);
      collect_stabiliser(chunk, acc);
    });
    for (int i = 0; i < n_parameters_; i++) {
      double sum = 0;
      for (int c = 0; c < n_chunks_; c++) sum += partial_[static_cast<size_t>(c) * n_parameters_ + i];
      d_parameters[i] = static_cast<float>(sum);
    }
  }

 private:
  static constexpr int CHUNK_PIXELS = 4096, MAX_CHANNELS = 256;

  int channels(int t) const { return t + n_head_ ? (t ? layers_[n_head_ + t - 1].n_out : layers_[n_head_ - 1].n_out) : n_in_; }
  float* accumulators(Buffer<float>& s) { return s.data() + s.size() - static_cast<size_t>(n_parameters_ + 8) * VL; }
  float* line(Buffer<float>& s, int c) { return s.data() + scratch_size_ + c * row_size_ + 32; }

  template <class F>
  void each_chunk(F&& f) {
    pool_.run(n_chunks_, [&](int i, int thread) {
      f(i, i * rows_, std::min(height_, (i + 1) * rows_), scratch_[thread]);
    });
  }
  template <class F>
  void each_row(F&& f) {
    each_chunk([&](int chunk, int y0, int y1, Buffer<float>& s) {
      for (int y = y0; y < y1; y++) f(chunk, y, s);
    });
  }

  void clear(float* acc, int first, int end) {
    std::memset(acc + static_cast<size_t>(offsets_[first]) * VL, 0, (offsets_[end] - offsets_[first]) * VL * sizeof(float));
  }
  void clear_stabiliser(float* acc) {
    std::memset(acc + static_cast<size_t>(offsets_.back()) * VL, 0, (n_parameters_ - offsets_.back()) * VL * sizeof(float));
  }
  void collect(int chunk, const float* acc, int first, int end) {
    for (int i = offsets_[first]; i < offsets_[end]; i++)
      partial_[static_cast<size_t>(chunk) * n_parameters_ + i] = hsum(load(acc + static_cast<size_t>(i) * VL));
  }
  void collect_stabiliser(int chunk, const float* acc) {
    for (int i = offsets_.back(); i < n_parameters_; i++)
      partial_[static_cast<size_t>(chunk) * n_parameters_ + i] = hsum(load(acc + static_cast<size_t>(i) * VL));
  }

  void masked_copy(float* to, const float* from, const float* mask) {
    if (!mask) {
      std::memcpy(to, from, width_ * sizeof(float));
      return;
    }
    for (int x = 0; x < width_; x++) to[x] = mask[x] > 0.f ? from[x] : 0.f;
  }

  // Weights rearranged so that the innermost index is the one that a tile broadcasts over:
  // head and stabiliser [in][out]; tail forward [in][dy][dx][out]; tail backward [out][dy][dx][in].
  void prepare(const float* parameters) {
    forward_.resize(n_parameters_);
    backward_.resize(n_parameters_);
    for (size_t l = 0; l < layers_.size(); l++) {
      const auto& layer = layers_[l];
      const float* w = parameters + offsets_[l];
      int k = layer.kernel * layer.kernel;
      for (int o = 0; o < layer.n_out; o++)
        for (int i = 0; i < layer.n_in; i++)
          for (int j = 0; j < k; j++) {
            forward_[offsets_[l] + (i * k + j) * layer.n_out + o] = w[(o * layer.n_in + i) * k + j];
            backward_[offsets_[l] + (o * k + j) * layer.n_in + i] = w[(o * layer.n_in + i) * k + j];
          }
    }
    if (stabiliser_)
      for (int o = 0; o < n_out_; o++)
        for (int i = 0; i < n_seen_; i++)
          forward_[offsets_.back() + i * n_out_ + o] = parameters[offsets_.back() + o * n_seen_ + i];
  }

  void load_block(const float* z, int y, int x0, int pixels, float* block) {
    int padded = (pixels + VL - 1) / VL * VL;
    for (int c = 0; c < n_in_; c++) {
      std::memcpy(block + c * LD, z + (static_cast<size_t>(c) * height_ + y) * width_ + x0, pixels * sizeof(float));
      std::memset(block + c * LD + pixels, 0, (padded - pixels) * sizeof(float));
    }
  }

  // Activations of the first `layers` of the head for one block, each behind the other from its input on; returns where
  // the last of them begin.
  const float* head(const float* parameters, int pixels, float* block, int layers) {
    const float* in = block;
    float* out = block + n_in_ * LD;
    for (int l = 0; l < layers; l++) {
      const auto& layer = layers_[l];
      const float* bias = parameters + offsets_[l] + layer.weights();
      product(forward_.data() + offsets_[l], layer.n_out, layer.n_in, in, pixels, [&](int m, int n, vf v) {
        v += bias[m];
        if (layer.residual) v += load(in + m * LD + n);
        store(out + m * LD + n, layer.relu ? vmax(v, vf{}) : v);
      });
      in = out;
      out += layer.n_out * LD;
    }
    return in;
  }

  void head_row(const float* z, const float* parameters, int y, float* s, float* out) {
    bool has_tail = layers_.size() > static_cast<size_t>(n_head_);
    const float* bias = parameters + offsets_.back() + n_out_ * n_seen_;
    for (int x = 0; x < width_; x += LD) {
      int pixels = std::min(LD, width_ - x);
      load_block(z, y, x, pixels, s);
      const float* last = head(parameters, pixels, s, n_head_);
      for (int c = 0; c < channels(0); c++)
        std::memcpy(planes_[0].row(c, y) + x, last + c * LD, pixels * sizeof(float));
      float* o = s + scratch_size_ - n_out_ * LD;
      if (stabiliser_)
        product(forward_.data() + offsets_.back(), n_out_, n_seen_, s, pixels,
                [&](int m, int n, vf v) { store(o + m * LD + n, v + bias[m]); });
      else
        std::memset(o, 0, n_out_ * LD * sizeof(float));
      for (int c = 0; c < n_out_; c++) {
        float* to = out + (static_cast<size_t>(c) * height_ + y) * width_ + x;
        for (int i = 0; i < pixels; i++) to[i] = o[c * LD + i] + (has_tail ? 0.f : last[c * LD + i]);
      }
    }
  }

  // acc[m][v] += sum over source channels and taps of planes[c][y + dy][x + dx] w[c][dy][dx][m].
  template <int MT, int NV>
  inline __attribute__((always_inline)) void convolve_tile(Planes& in, int n_in, int k, const float* w, int ldw, int y, int x, vf (&acc)[MT][NV]) {
    for (int m = 0; m < MT; m++)
      for (int v = 0; v < NV; v++) acc[m][v] = vf{};
    int r = k / 2;
    for (int c = 0; c < n_in; c++)
      for (int dy = 0; dy < k; dy++) {
        const float* from = in.row(c, y + dy - r) + x - r;
        for (int dx = 0; dx < k; dx++, w += ldw) {
          vf p[NV];
          for (int v = 0; v < NV; v++) p[v] = load(from + dx + v * VL);
#pragma GCC unroll 8
          for (int m = 0; m < MT; m++)
            for (int v = 0; v < NV; v++) acc[m][v] += w[m] * p[v];
        }
      }
  }

  template <class F>
  void by_channels(int n, F&& f) {  // tiles of 5, 4, 3, 2, 1 output channels
    for (int m = 0; m < n;) {
      int left = n - m;
      if (left == 5) f(std::integral_constant<int, 5>{}, m), m += 5;
      else if (left == 3) f(std::integral_constant<int, 3>{}, m), m += 3;
      else if (left >= 4) f(std::integral_constant<int, 4>{}, m), m += 4;
      else if (left == 2) f(std::integral_constant<int, 2>{}, m), m += 2;
      else f(std::integral_constant<int, 1>{}, m), m += 1;
    }
  }

  static constexpr int NV = VL == 16 ? 4 : 2;

  void tail_row(int t, const float* parameters, int y, float* out) {
    const auto& layer = layers_[n_head_ + t];
    Planes &in = planes_[t], &to = planes_[t + 1];
    const float *w = forward_.data() + offsets_[n_head_ + t], *bias = parameters + offsets_[n_head_ + t] + layer.weights();
    by_channels(layer.n_out, [&](auto mt, int m0) {
      constexpr int MT = decltype(mt)::value;
      auto run = [&](auto nv, int x) {
        constexpr int N = decltype(nv)::value;
        vf acc[MT][N];
        convolve_tile<MT, N>(in, layer.n_in, layer.kernel, w + m0, layer.n_out, y, x, acc);
        for (int m = 0; m < MT; m++)
          for (int v = 0; v < N; v++) {
            vf a = acc[m][v] + bias[m0 + m];
            if (layer.residual) a += load(in.row(m0 + m, y) + x + v * VL);
            store(to.row(m0 + m, y) + x + v * VL, layer.relu ? vmax(a, vf{}) : a);
          }
      };
      int x = 0;
      for (; x + NV * VL <= width_; x += NV * VL) run(std::integral_constant<int, NV>{}, x);
      for (; x < width_; x += VL) run(std::integral_constant<int, 1>{}, x);
    });
    if (n_head_ + t + 1 < static_cast<int>(layers_.size())) {
      to.extend(layer.n_out, y);
    } else {
      for (int c = 0; c < n_out_; c++) {
        float *o = out + (static_cast<size_t>(c) * height_ + y) * width_, *from = to.row(c, y);
        for (int x = 0; x < width_; x++) o[x] += from[x];
      }
    }
  }

  // d(loss)/d(input of tail layer t), row y, into lines of the scratch: the transposed convolution, with what falls
  // outside the picture folded back onto its border, plus the residual connection.
  void tail_backward(int t, int y, float* lines) {
    const auto& layer = layers_[n_head_ + t];
    Planes& d = gradients_[t];
    int k = layer.kernel, r = k / 2;
    const float* w = backward_.data() + offsets_[n_head_ + t];
    std::vector<std::pair<int, int>> sources;  // (kernel row, row of d)
    for (int fold = y == 0 ? -r : 0; fold <= (y == height_ - 1 ? r : 0); fold++)
      for (int dy = 0; dy < k; dy++) {
        int from = y + fold - dy + r;
        if ((fold == 0 || (fold < 0 ? y == 0 : y == height_ - 1)) && from >= 0 && from < height_) sources.push_back({dy, from});
      }
    by_channels(layer.n_in, [&](auto mt, int m0) {
      constexpr int MT = decltype(mt)::value;
      for (int x = -VL; x < width_ + r; x += VL) {
        vf acc[MT] = {};
        for (auto [dy, from] : sources)
          for (int o = 0; o < layer.n_out; o++) {
            const float *p = d.row(o, from) + x + r, *wk = w + (o * k + dy) * k * layer.n_in + m0;
            for (int dx = 0; dx < k; dx++, wk += layer.n_in) {
              vf v = load(p - dx);
#pragma GCC unroll 8
              for (int m = 0; m < MT; m++) acc[m] += wk[m] * v;
            }
          }
        for (int m = 0; m < MT; m++) store(lines + (m0 + m) * row_size_ + 32 + x, acc[m]);
      }
    });
    for (int c = 0; c < layer.n_in; c++) {
      float* g = lines + c * row_size_ + 32;
      for (int i = 1; i <= r; i++) g[0] += g[-i], g[width_ - 1] += g[width_ - 1 + i];
      if (layer.residual) {
        const float* own = d.row(c, y);
        for (int x = 0; x < width_; x++) g[x] += own[x];
      }
    }
  }

  void tail_weights(int t, int y, float* acc) {
    const auto& layer = layers_[n_head_ + t];
    Planes &d = gradients_[t], &in = planes_[t];
    int k = layer.kernel, r = k / 2;
    by_channels(layer.n_out, [&](auto mt, int m0) {
      constexpr int MT = decltype(mt)::value;
      for (int c = 0; c < layer.n_in; c++)
        for (int dy = 0; dy < k; dy++) {
          float* to = acc + ((static_cast<size_t>(m0) * layer.n_in + c) * k + dy) * k * VL;
          size_t step = static_cast<size_t>(layer.n_in) * k * k * VL;
          const float* p = in.row(c, y + dy - r) - r;
          if (k == 3) weight_tile<MT, 3>(d, m0, y, p, to, step);
          else
            for (int dx = 0; dx < k; dx++) weight_tile<MT, 1>(d, m0, y, p + dx, to + dx * VL, step);
        }
      for (int m = 0; m < MT; m++) {
        float* to = acc + (static_cast<size_t>(layer.weights()) + m0 + m) * VL;
        vf s = load(to);
        for (int x = 0; x < width_; x += VL) s += load(d.row(m0 + m, y) + x);
        store(to, s);
      }
    });
  }

  template <int MT, int K>
  inline __attribute__((always_inline)) void weight_tile(Planes& d, int m0, int y, const float* p, float* acc, size_t step) {
    vf a[MT][K];
    const float* rows[MT];
    for (int m = 0; m < MT; m++) {
      rows[m] = d.row(m0 + m, y);
      for (int k = 0; k < K; k++) a[m][k] = load(acc + m * step + k * VL);
    }
    for (int x = 0; x < width_; x += VL) {
      vf q[K];
      for (int k = 0; k < K; k++) q[k] = load(p + x + k);
#pragma GCC unroll 8
      for (int m = 0; m < MT; m++) {
        vf g = load(rows[m] + x);
        for (int k = 0; k < K; k++) a[m][k] += g * q[k];
      }
    }
    for (int m = 0; m < MT; m++)
      for (int k = 0; k < K; k++) store(acc + m * step + k * VL, a[m][k]);
  }

  void head_backward(const float* z, const float* parameters, const float* d_out, float* d_z, int y, Buffer<float>& buffer,
                     float* acc, bool has_tail) {
    float *s = buffer.data(), *o = s + scratch_size_ - n_out_ * LD;
    float* d = s + scratch_size_ - n_out_ * LD;
    int head_size = n_in_, n_needed = n_head_;
    for (int l = 0; l < n_head_; l++) head_size += layers_[l].n_out;
    if (n_head_ && !layers_[n_head_ - 1].relu) n_needed--;  // its output is not asked for
    for (int x = 0; x < width_; x += LD) {
      int pixels = std::min(LD, width_ - x), padded = (pixels + VL - 1) / VL * VL;
      load_block(z, y, x, pixels, s);
      head(parameters, pixels, s, n_needed);
      const float* end = s + head_size * LD;
      auto fetch = [&](float* to, const float* from) {
        std::memcpy(to, from, pixels * sizeof(float));
        std::memset(to + pixels, 0, (padded - pixels) * sizeof(float));
      };
      for (int c = 0; c < n_out_; c++) fetch(o + c * LD, d_out + (static_cast<size_t>(c) * height_ + y) * width_ + x);
      float *g = const_cast<float*>(end), *next = g + max_channels() * LD;
      for (int c = 0; c < channels(0); c++)
        has_tail ? fetch(g + c * LD, line(buffer, c) + x) : fetch(g + c * LD, o + c * LD);
      const float* out = end;
      for (int l = n_head_ - 1; l >= 0; l--) {
        const auto& layer = layers_[l];
        out -= layer.n_out * LD;
        const float* in = l ? out - layer.n_in * LD : s;
        if (layer.relu)
          for (int c = 0; c < layer.n_out; c++)
            for (int n = 0; n < pixels; n += VL)
              store(g + c * LD + n, load(out + c * LD + n) > 0.f ? load(g + c * LD + n) : vf{});
        outer(g, layer.n_out, in, layer.n_in, pixels, acc + static_cast<size_t>(offsets_[l]) * VL);
        row_sums(g, layer.n_out, pixels, acc + static_cast<size_t>(offsets_[l] + layer.weights()) * VL);
        product(parameters + offsets_[l], layer.n_in, layer.n_out, g, pixels, [&](int m, int n, vf v) {
          store(next + m * LD + n, layer.residual ? v + load(g + m * LD + n) : v);
        });
        std::swap(g, next);
      }
      d = g;
      if (stabiliser_) {
        const float* w = parameters + offsets_.back();
        outer(o, n_out_, s, n_seen_, pixels, acc + static_cast<size_t>(offsets_.back()) * VL);
        row_sums(o, n_out_, pixels, acc + static_cast<size_t>(offsets_.back() + n_out_ * n_seen_) * VL);
        product(w, n_seen_, n_out_, o, pixels,
                [&](int m, int n, vf v) { store(d + m * LD + n, v + load(d + m * LD + n)); });
      }
      for (int c = 0; c < n_in_; c++)
        std::memcpy(d_z + (static_cast<size_t>(c) * height_ + y) * width_ + x, d + c * LD, pixels * sizeof(float));
    }
  }

  int max_channels() const {
    int n = n_in_;
    for (auto& layer : layers_) n = std::max(n, layer.n_out);
    return n;
  }

  std::vector<LayerShape> layers_;
  int n_in_, n_seen_, n_out_ = 0, n_head_ = 0, n_parameters_ = 0;
  bool stabiliser_;
  int height_, width_, rows_ = 1, n_chunks_ = 1;
  Pool& pool_;
  std::vector<int> offsets_;
  std::vector<Planes> planes_, gradients_;  // planes_[t]: input of tail layer t, planes_[t + 1] its output
  Buffer<float> forward_, backward_, partial_;
  std::vector<Buffer<float>> scratch_;
  size_t scratch_size_ = 0, row_size_ = 0;
};

}  // namespace coolvid
