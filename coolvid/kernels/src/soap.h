// SOAP (arXiv 2409.11321, algorithm 3) on a flat vector of small matrices: Adam in the slowly turning eigenbasis of the
// covariances of the gradient's rows and columns.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace coolvid {

// Covariances and basis (eigenvectors as columns) of one side of a block: [count][n][n] each, or null: not rotated.
struct SoapSide {
  float *moment, *basis;
};

// `count` matrices [rows][columns] at `start`.
struct SoapBlock {
  int start, count, rows, columns;
  SoapSide left, right;
  int size() const { return rows * columns; }
};

// open: how much of the old basis settles the directions that the covariances leave open.
struct SoapSettings {
  float beta1, beta2, eps, weight_decay, max_norm, open;
};

// out [m][n] = a b, or a^T b, with a [m][k] or [k][m] and b [k][n].
inline void small_product(const float* a, bool transposed, const float* b, float* out, int m, int k, int n) {
  std::fill_n(out, m * n, 0.f);
  for (int i = 0; i < m; i++) {
    float* __restrict row = out + i * n;
    for (int j = 0; j < k; j++) {
      float w = transposed ? a[j * m + i] : a[i * k + j];
      const float* __restrict from = b + j * n;
      for (int x = 0; x < n; x++) row[x] += w * from[x];
    }
  }
}

// Each matrix of the block at v (the block's own start) into the basis Q, as left^T v right, or back, as left v right^T.
inline void rotate(const SoapBlock& block, float* v, bool forward, std::vector<float>& scratch) {
  scratch.resize(block.size() + block.columns * block.columns);
  float *made = scratch.data(), *turned = made + block.size();
  for (int i = 0; i < block.count; i++, v += block.size()) {
    if (block.left.basis) {
      const float* basis = block.left.basis + i * block.rows * block.rows;
      small_product(basis, forward, v, made, block.rows, block.rows, block.columns);
      std::copy_n(made, block.size(), v);
    }
    if (!block.right.basis) continue;
    int n = block.columns;
    const float* basis = block.right.basis + i * n * n;
    if (!forward) {
      for (int r = 0; r < n; r++)
        for (int c = 0; c < n; c++) turned[c * n + r] = basis[r * n + c];
      basis = turned;
    }
    small_product(v, false, basis, made, block.rows, n, n);
    std::copy_n(made, block.size(), v);
  }
}

// moment = beta moment + (1 - beta) g g^T for rows [m][n] of g: covariances of the rows.
inline void add_covariance(const float* g, float* moment, int m, int n, float beta) {
  for (int i = 0; i < m; i++)
    for (int j = 0; j <= i; j++) {
      float sum = 0;
      for (int x = 0; x < n; x++) sum += g[i * n + x] * g[j * n + x];
      float value = beta * moment[i * m + j] + (1.f - beta) * sum;
      moment[i * m + j] = moment[j * m + i] = value;
    }
}

// The columns of a [n][n], independent of each other, made orthonormal in their order (Gram-Schmidt).
inline void orthonormalise(double* a, int n) {
  std::vector<double> shares(n);
  for (int k = 0; k < n; k++) {
    double square = 0;
    for (int r = 0; r < n; r++) square += a[r * n + k] * a[r * n + k];
    double length = std::sqrt(std::max(square, 1e-300));
    for (int r = 0; r < n; r++) a[r * n + k] /= length;
    std::fill(shares.begin(), shares.end(), 0.0);
    for (int r = 0; r < n; r++)
      for (int j = k + 1; j < n; j++) shares[j] += a[r * n + k] * a[r * n + j];
    for (int r = 0; r < n; r++)
      for (int j = k + 1; j < n; j++) a[r * n + j] -= a[r * n + k] * shares[j];
  }
}

// One step of orthogonal iteration for moment and basis [n][n]; returns in which order the old directions were taken:
// by decreasing power.
inline std::vector<int> follow(const float* moment, float* basis, int n, float open) {
  std::vector<float> turned(n * n), power(n);
  small_product(moment, false, basis, turned.data(), n, n, n);
  float largest = 1e-30f;
  for (int i = 0; i < n * n; i++) power[i % n] += basis[i] * turned[i], largest = std::max(largest, std::abs(turned[i]));
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return power[a] > power[b]; });
  std::vector<double> next(n * n);
  for (int r = 0; r < n; r++)
    for (int c = 0; c < n; c++)
      next[r * n + c] = static_cast<double>(turned[r * n + order[c]]) / largest + open * basis[r * n + order[c]];
  orthonormalise(next.data(), n);
  for (int i = 0; i < n * n; i++) basis[i] = static_cast<float>(next[i]);
  return order;
}

// Blocks, the first moment and the second (of the rotated gradient) [n] belong to the caller. order [n]: where each
// element of the blocks lies in the vectors of parameters and gradients.
class Soap {
 public:
  Soap(std::vector<SoapBlock> blocks, std::vector<int> order, float* first, float* second, SoapSettings settings)
      : blocks_(std::move(blocks)), order_(std::move(order)), first_(first), second_(second), s_(settings),
        gradient_(order_.size()), rotated_(order_.size()), update_(order_.size()) {}

  // One step; steps: how many there were. The first one only looks, and neither moment remembers it: a step is as long
  // as lr at most only while both have seen the same gradients.
  void step(const float* gradients, float* values, float lr, int steps, bool refresh) {
    size_t n = order_.size();
    double square = 0;
    for (size_t i = 0; i < n; i++) {
      gradient_[i] = gradients[order_[i]];
      square += static_cast<double>(gradient_[i]) * gradient_[i];
    }
    float clip = static_cast<float>(std::min(1.0, s_.max_norm / (std::sqrt(square) + 1e-12)));
    for (size_t i = 0; i < n; i++) gradient_[i] *= clip;
    if (steps) move(values, lr, steps);
    observe();
    if (!refresh) return;
    for (auto& block : blocks_) turn(block);
  }

 private:
  // Adam in the eigenbasis, rotated back.
  void move(float* values, float lr, int steps) {
    size_t n = order_.size();
    for (size_t i = 0; i < n; i++) first_[i] += (1.f - s_.beta1) * (gradient_[i] - first_[i]);
    std::copy(gradient_.begin(), gradient_.end(), rotated_.begin());
    std::copy_n(first_, n, update_.begin());
    for (auto& block : blocks_) {
      rotate(block, rotated_.data() + block.start, true, scratch_);
      rotate(block, update_.data() + block.start, true, scratch_);
    }
    float correction = std::sqrt(1.0 - std::pow(static_cast<double>(s_.beta2), steps));
    for (size_t i = 0; i < n; i++) {
      second_[i] = s_.beta2 * second_[i] + (1.f - s_.beta2) * rotated_[i] * rotated_[i];
      update_[i] /= std::sqrt(second_[i]) / correction + s_.eps;
    }
    for (auto& block : blocks_) rotate(block, update_.data() + block.start, false, scratch_);
    float decay = 1.f - lr * s_.weight_decay;
    float rate = static_cast<float>(lr / (1.0 - std::pow(static_cast<double>(s_.beta1), steps)));
    for (size_t i = 0; i < n; i++) values[order_[i]] = decay * values[order_[i]] - rate * update_[i];
  }

  // Adds the gradient to the covariances.
  void observe() {
    for (auto& block : blocks_) {
      const float* g = gradient_.data() + block.start;
      for (int i = 0; i < block.count; i++, g += block.size()) {
        if (block.left.moment)
          add_covariance(g, block.left.moment + i * block.rows * block.rows, block.rows, block.columns, s_.beta2);
        if (!block.right.moment) continue;
        scratch_.resize(block.size());
        for (int r = 0; r < block.rows; r++)
          for (int c = 0; c < block.columns; c++) scratch_[c * block.rows + r] = g[r * block.columns + c];
        float* moment = block.right.moment + i * block.columns * block.columns;
        add_covariance(scratch_.data(), moment, block.columns, block.rows, s_.beta2);
      }
    }
  }

  // Lets both bases of a block follow the covariances, and the second moment their order.
  void turn(const SoapBlock& block) {
    int rows = block.rows, columns = block.columns;
    for (int i = 0; i < block.count; i++) {
      std::vector<int> left(rows), right(columns);
      std::iota(left.begin(), left.end(), 0), std::iota(right.begin(), right.end(), 0);
      if (block.left.basis)
        left = follow(block.left.moment + i * rows * rows, block.left.basis + i * rows * rows, rows, s_.open);
      if (block.right.basis)
        right = follow(block.right.moment + i * columns * columns, block.right.basis + i * columns * columns, columns, s_.open);
      float* second = second_ + block.start + i * block.size();
      scratch_.assign(second, second + block.size());
      for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) second[r * columns + c] = scratch_[left[r] * columns + right[c]];
    }
  }

  std::vector<SoapBlock> blocks_;
  std::vector<int> order_;
  float *first_, *second_;
  SoapSettings s_;
  std::vector<float> gradient_, rotated_, update_, scratch_;
};

}  // namespace coolvid
