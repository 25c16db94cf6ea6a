// One step of SOAP on a flat vector of small matrices: rotations into the eigenbasis and back, and the covariances.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

namespace coolvid {

// `count` matrices [rows][columns] at `start`. left, right: square matrices [count][n][n] of each side, or null.
struct SoapBlock {
  int start, count, rows, columns;
  float *left, *right;
  int size() const { return rows * columns; }
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
    if (block.left) {
      const float* basis = block.left + i * block.rows * block.rows;
      small_product(basis, forward, v, made, block.rows, block.rows, block.columns);
      std::copy_n(made, block.size(), v);
    }
    if (!block.right) continue;
    int n = block.columns;
    const float* basis = block.right + i * n * n;
    if (!forward) {
      for (int r = 0; r < n; r++)
        for (int c = 0; c < n; c++) turned[c * n + r] = basis[r * n + c];
      basis = turned;
    }
    small_product(v, false, basis, made, block.rows, n, n);
    std::copy_n(made, block.size(), v);
  }
}

// Adam in the eigenbasis: gradient [n] and first moment [n] -> update [n]; the second moment [n] goes on.
inline void soap_update(const std::vector<SoapBlock>& blocks, const float* gradient, const float* first, float* second,
                        float* update, int n, float beta2, float correction, float eps) {
  std::vector<float> rotated(gradient, gradient + n), scratch;
  std::copy_n(first, n, update);
  for (auto& block : blocks) {
    rotate(block, rotated.data() + block.start, true, scratch);
    rotate(block, update + block.start, true, scratch);
  }
  for (int i = 0; i < n; i++) {
    second[i] = beta2 * second[i] + (1.f - beta2) * rotated[i] * rotated[i];
    update[i] /= std::sqrt(second[i]) / correction + eps;
  }
  for (auto& block : blocks) rotate(block, update + block.start, false, scratch);
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

// Adds the gradient to the covariances, here the blocks' left and right.
inline void soap_observe(const std::vector<SoapBlock>& blocks, const float* gradient, float beta) {
  std::vector<float> turned;
  for (auto& block : blocks) {
    const float* g = gradient + block.start;
    for (int i = 0; i < block.count; i++, g += block.size()) {
      if (block.left) add_covariance(g, block.left + i * block.rows * block.rows, block.rows, block.columns, beta);
      if (!block.right) continue;
      turned.resize(block.size());
      for (int r = 0; r < block.rows; r++)
        for (int c = 0; c < block.columns; c++) turned[c * block.rows + r] = g[r * block.columns + c];
      add_covariance(turned.data(), block.right + i * block.columns * block.columns, block.columns, block.rows, beta);
    }
  }
}

}  // namespace coolvid
