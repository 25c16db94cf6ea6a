// Small matrix products over rows of pixels: planes are stored [channel][LD pixels], weights are broadcast.
#pragma once
#include <algorithm>

#include "simd.h"

namespace coolvid {

constexpr int LD = 192;  // pixels of a block; a multiple of every VL
constexpr int MAX_TILE = VL == 16 ? 13 : 6;

// Rows of a tile when m rows are split into equal tiles of at most MAX_TILE.
constexpr int tile_rows(int m) {
  int tiles = (m + MAX_TILE - 1) / MAX_TILE;
  return (m + tiles - 1) / tiles;
}

template <int MT, int NV, class Epilogue>
COOLVID_INLINE void product_tile(const float* w, int ldw, int m0, int k_total, const float* x, int n, Epilogue& out) {
  vf acc[MT][NV];
  for (int m = 0; m < MT; m++)
    for (int v = 0; v < NV; v++) acc[m][v] = vf{};
#pragma GCC unroll 1
  for (int k = 0; k < k_total; k++) {
    vf xv[NV];
    for (int v = 0; v < NV; v++) xv[v] = load(x + k * LD + n + v * VL);
#pragma GCC unroll 16
    for (int m = 0; m < MT; m++) {
      float wk = w[k * ldw + m0 + m];
      for (int v = 0; v < NV; v++) acc[m][v] += wk * xv[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MT; m++)
    for (int v = 0; v < NV; v++) out(m0 + m, n + v * VL, acc[m][v]);
}

template <int MT, class Epilogue>
COOLVID_INLINE void product_rows(int mt, const float* w, int ldw, int m0, int k, const float* x, int pixels,
                                 Epilogue& out) {
  if (mt != MT) {
    if constexpr (MT > 1) product_rows<MT - 1>(mt, w, ldw, m0, k, x, pixels, out);
    return;
  }
  int n = 0;
  for (; n + 2 * VL <= pixels; n += 2 * VL) product_tile<MT, 2>(w, ldw, m0, k, x, n, out);
  for (; n < pixels; n += VL) product_tile<MT, 1>(w, ldw, m0, k, x, n, out);
}

// out(m, pixel, sum_k w[k][m] x[k][pixel]) for every m and every vector of pixels. w is [k][m].
template <class Epilogue>
COOLVID_INLINE void product(const float* w, int m, int k, const float* x, int pixels, Epilogue out) {
  int rows = tile_rows(m);
  for (int m0 = 0; m0 < m; m0 += rows)
    product_rows<MAX_TILE>(std::min(rows, m - m0), w, m, m0, k, x, pixels, out);
}

template <int MT, int KT>
COOLVID_INLINE void outer_tile(const float* d, const float* x, int pixels, float* acc, int k_total) {
  vf a[MT][KT];
  for (int m = 0; m < MT; m++)
    for (int k = 0; k < KT; k++) a[m][k] = load(acc + (m * k_total + k) * VL);
#pragma GCC unroll 1
  for (int n = 0; n < pixels; n += VL) {
    vf xv[KT];
#pragma GCC unroll 16
    for (int k = 0; k < KT; k++) xv[k] = load(x + k * LD + n);
#pragma GCC unroll 16
    for (int m = 0; m < MT; m++) {
      vf dv = load(d + m * LD + n);
#pragma GCC unroll 16
      for (int k = 0; k < KT; k++) a[m][k] += dv * xv[k];
    }
  }
  for (int m = 0; m < MT; m++)
    for (int k = 0; k < KT; k++) store(acc + (m * k_total + k) * VL, a[m][k]);
}

constexpr int OUTER_M = VL == 16 ? 5 : 2, OUTER_K = VL == 16 ? 5 : 5;

// acc[m][k] (one vector of partial sums each) += sum over pixels of d[m] x[k]. Pixels beyond the block must be 0 in d.
COOLVID_INLINE void outer(const float* d, int m, const float* x, int k, int pixels, float* acc) {
  auto columns = [&](auto mt, int m0) {
    constexpr int MT = decltype(mt)::value;
    int k0 = 0;
    for (; k0 + OUTER_K <= k; k0 += OUTER_K)
      outer_tile<MT, OUTER_K>(d + m0 * LD, x + k0 * LD, pixels, acc + (m0 * k + k0) * VL, k);
    for (; k0 + 2 <= k; k0 += 2) outer_tile<MT, 2>(d + m0 * LD, x + k0 * LD, pixels, acc + (m0 * k + k0) * VL, k);
    for (; k0 < k; k0++) outer_tile<MT, 1>(d + m0 * LD, x + k0 * LD, pixels, acc + (m0 * k + k0) * VL, k);
  };
  int m0 = 0;
  for (; m0 + OUTER_M <= m; m0 += OUTER_M) columns(std::integral_constant<int, OUTER_M>{}, m0);
  for (; m0 + 2 <= m; m0 += 2) columns(std::integral_constant<int, 2>{}, m0);
  for (; m0 < m; m0++) columns(std::integral_constant<int, 1>{}, m0);
}

// acc[m] += sum over pixels of d[m].
COOLVID_INLINE void row_sums(const float* d, int m, int pixels, float* acc) {
  for (int i = 0; i < m; i++) {
    vf s = load(acc + i * VL);
    for (int n = 0; n < pixels; n += VL) s += load(d + i * LD + n);
    store(acc + i * VL, s);
  }
}

}  // namespace coolvid
