// Motion compensation with a separable filter of up to 16 taps, and its derivative by the flow.
//
// Taps for any fraction of a pixel come from a fine table by linear interpolation. The reference does not change while
// a frame is trained: it is kept with a border as wide as the filter, so that no position needs a test per tap.
#pragma once
#include <stdexcept>

#include "pool.h"
#include "simd.h"

namespace coolvid {

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

class Warp {
 public:
  // reference [C][H][W]; every block x block pixels share a vector; taps, slopes [steps + 1][n]: filter and its
  // derivative at fractions 0, 1 / steps, ... 1.
  Warp(const float* reference, int channels, int height, int width, const float* taps, const float* slopes, int steps,
       int n, int block, int threads)
      : channels_(channels), height_(height), width_(width), steps_(steps), n_(n), block_(block), vectors_((n + 7) / 8),
        pool_(shared_pool(threads)) {
    if (n < 2 || n > 16 || n % 2) throw std::invalid_argument("number of taps");
    if (block < 1) throw std::invalid_argument("block size");
    margin_ = n + 2;
    stride_ = width + 2 * margin_ + 32;
    size_t plane = static_cast<size_t>(height + 2 * margin_) * stride_;
    reference_.resize(plane * channels + 64);
    for (int c = 0; c < channels; c++)
      for (int y = -margin_; y < height + margin_; y++) {
        const float* from = reference + (static_cast<size_t>(c) * height + std::min(std::max(y, 0), height - 1)) * width;
        for (int x = -margin_; x < width + margin_; x++) at(c, y, x)[0] = from[std::min(std::max(x, 0), width - 1)];
      }
    size_t row = static_cast<size_t>(vectors_) * 8;
    taps_.resize((steps + 2) * row);
    slopes_.resize((steps + 2) * row);
    for (int i = 0; i <= steps; i++)
      for (int k = 0; k < n; k++) taps_[i * row + k] = taps[i * n + k], slopes_[i * row + k] = slopes[i * n + k];
    std::memcpy(taps_.data() + (steps + 1) * row, taps_.data() + steps * row, row * sizeof(float));
    std::memcpy(slopes_.data() + (steps + 1) * row, slopes_.data() + steps * row, row * sizeof(float));
    derivative_.resize(2 * static_cast<size_t>(channels) * height * width);
  }

  int channels() const { return channels_; }
  int height() const { return height_; }
  int width() const { return width_; }
  int block_rows() const { return (height_ + block_ - 1) / block_; }
  int block_columns() const { return (width_ + block_ - 1) / block_; }
  int blocks() const { return block_rows() * block_columns(); }

  // flow [2][block rows][block columns] in pixels, x then y -> out [C][H][W]; with `gradients`, keeps what backward()
  // needs.
  void forward(const float* flow, float* out, bool gradients) {
    pool_.run(block_rows(), [&](int row, int) {
      vectors_ == 1 ? block_row<1>(flow, out, row, gradients) : block_row<2>(flow, out, row, gradients);
    });
  }

  // d(loss)/d(out) [C][H][W] -> d(loss)/d(flow), at the flow of the last forward().
  void backward(const float* d_out, float* d_flow) {
    size_t n = static_cast<size_t>(height_) * width_;
    pool_.run(block_rows(), [&](int row, int) {
      std::vector<float> sums(width_);  // of the block row's rows and channels
      for (int axis = 0; axis < 2; axis++) {
        std::fill(sums.begin(), sums.end(), 0.f);
        for (int c = 0; c < channels_; c++)
          for (int y = row * block_; y < std::min(height_, (row + 1) * block_); y++) {
            const float* g = d_out + c * n + static_cast<size_t>(y) * width_;
            const float* d = derivative_.data() + (axis * channels_ + c) * n + static_cast<size_t>(y) * width_;
            float* __restrict to = sums.data();
            for (int x = 0; x < width_; x++) to[x] += g[x] * d[x];
          }
        float* to = d_flow + static_cast<size_t>(axis * block_rows() + row) * block_columns();
        for (int column = 0; column < block_columns(); column++) {
          float sum = 0;
          for (int x = column * block_; x < std::min(width_, (column + 1) * block_); x++) sum += sums[x];
          to[column] = sum;
        }
      }
    });
  }

 private:
  static constexpr float LIMIT = 32768.f;
  static constexpr int SQUARE = 4;  // side of the blocks that are filtered as one

  float* at(int c, int y, int x) {
    return reference_.data() + (static_cast<size_t>(c) * (height_ + 2 * margin_) + y + margin_) * stride_ + x + margin_;
  }

  template <int V>
  struct Filter {
    int start;  // first pixel read, from the pixel's own place
    v8 taps[V], slopes[V];
  };

  // The filter for one component of the flow.
  template <int V>
  COOLVID_INLINE Filter<V> filter(const Warp& w, float flow) {
    Filter<V> f;
    flow = flow > -LIMIT ? std::min(flow, LIMIT) : -LIMIT;  // also for what is not a number
    float whole = std::floor(flow), place = (flow - whole) * w.steps_;
    f.start = static_cast<int>(whole) - w.n_ / 2 + 1;
    int i = static_cast<int>(place);
    float t = place - i;
    const float *a = w.taps_.data() + static_cast<size_t>(i) * V * 8, *b = w.slopes_.data() + static_cast<size_t>(i) * V * 8;
    for (int v = 0; v < V; v++) {
      v8 a0 = *(const v8*)(a + v * 8), a1 = *(const v8*)(a + (V + v) * 8);
      v8 b0 = *(const v8*)(b + v * 8), b1 = *(const v8*)(b + (V + v) * 8);
      f.taps[v] = a0 + t * (a1 - a0);
      f.slopes[v] = b0 + t * (b1 - b0);
    }
    return f;
  }

  COOLVID_INLINE float sum(v8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

  template <int V>
  void block_row(const float* flow, float* out, int row, bool gradients) {
    for (int column = 0; column < block_columns(); column++) {
      size_t i = static_cast<size_t>(row) * block_columns() + column;
      Filter<V> fx = filter<V>(*this, flow[i]), fy = filter<V>(*this, flow[blocks() + i]);
      if constexpr (V == 1)
        if (block_ == SQUARE && is_plain(row, fy, height_) && is_plain(column, fx, width_)) {
          square(out, row * SQUARE, column * SQUARE, fy, fx, gradients);
          continue;
        }
      for (int y = row * block_; y < std::min(height_, (row + 1) * block_); y++)
        for (int x = column * block_; x < std::min(width_, (column + 1) * block_); x++)
          pixel(out, y, x, fy, fx, gradients);
    }
  }

  // Beyond the border all pixels are alike: a start further out than the margin is moved to it.
  COOLVID_INLINE int clamped(int start, int n, int size) { return std::min(std::max(start, -n - 1), size + 1); }

  // Whether the block is whole and no position of its filter is moved to the margin.
  inline bool is_plain(int block, const Filter<1>& f, int size) {
    int first = block * SQUARE, last = first + SQUARE - 1;
    return last < size && first + f.start >= -n_ - 1 && last + f.start <= size + 1;
  }

  // SQUARE x SQUARE pixels that share a vector: their rows are filtered together, then their columns.
  inline void square(float* out, int y, int x, const Filter<1>& fy, const Filter<1>& fx, bool gradients) {
    size_t n = static_cast<size_t>(height_) * width_, i = static_cast<size_t>(y) * width_ + x;
    for (int c = 0; c < channels_; c++) {
      const float* from = at(c, y + fy.start, x + fx.start);
      float columns[SQUARE][16], slopes[SQUARE][16];
      for (int r = 0; r < SQUARE; r++) {
        v16 column = {}, slope = {};
        for (int k = 0; k < n_; k++) {
          v16 p = *(const v16*)(from + (r + k) * stride_);
          column += fy.taps[0][k] * p;
          slope += fy.slopes[0][k] * p;
        }
        *(v16*)columns[r] = column, *(v16*)slopes[r] = slope;
      }
      for (int r = 0; r < SQUARE; r++) {
        v4 value = {}, by_x = {}, by_y = {};
        for (int k = 0; k < n_; k++) {
          v4 p = *(const v4*)(columns[r] + k), d = *(const v4*)(slopes[r] + k);
          value += fx.taps[0][k] * p, by_x += fx.slopes[0][k] * p, by_y += fx.taps[0][k] * d;
        }
        size_t place = c * n + i + static_cast<size_t>(r) * width_;
        *(v4*)(out + place) = value;
        if (!gradients) continue;
        *(v4*)(derivative_.data() + place) = by_x;
        *(v4*)(derivative_.data() + channels_ * n + place) = by_y;
      }
    }
  }

  template <int V>
  inline void pixel(float* out, int y, int x, const Filter<V>& fy, const Filter<V>& fx, bool gradients) {
    size_t n = static_cast<size_t>(height_) * width_, i = static_cast<size_t>(y) * width_ + x;
    int top = clamped(y + fy.start, n_, height_), left = clamped(x + fx.start, n_, width_);
    for (int c = 0; c < channels_; c++) {
      const float* from = at(c, top, left);
      v8 column[V] = {}, slope[V] = {};
      for (int k = 0; k < n_; k++, from += stride_) {
        float tap = fy.taps[k / 8][k % 8], tap_slope = fy.slopes[k / 8][k % 8];
        for (int v = 0; v < V; v++) {
          v8 p = *(const v8*)(from + v * 8);
          column[v] += tap * p;
          slope[v] += tap_slope * p;
        }
      }
      v8 value = column[0] * fx.taps[0], by_x = column[0] * fx.slopes[0], by_y = slope[0] * fx.taps[0];
      for (int v = 1; v < V; v++)
        value += column[v] * fx.taps[v], by_x += column[v] * fx.slopes[v], by_y += slope[v] * fx.taps[v];
      out[c * n + i] = sum(value);
      if (gradients) {
        derivative_[c * n + i] = sum(by_x);
        derivative_[(channels_ + c) * n + i] = sum(by_y);
      }
    }
  }

  int channels_, height_, width_, steps_, n_, block_, vectors_, margin_ = 0, stride_ = 0;
  Pool& pool_;
  Buffer<float> reference_, taps_, slopes_, derivative_;
};

}  // namespace coolvid
