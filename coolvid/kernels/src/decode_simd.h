// Exact integer products for decoding. Values are int16, two to a lane: pair p of a position holds the inputs 2p (low
// half) and 2p + 1 (high half), and one multiply-add instruction takes both with their weights. Weights are limited
// (see coolvid/fixedpoint.py, fit_weights) so that no int32 accumulator can overflow: order never matters.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <algorithm>

#include "linear.h"

#define COOLVID_ALWAYS __attribute__((always_inline))

namespace coolvid::integer {

typedef int16_t vs __attribute__((vector_size(VL * 2), aligned(2), may_alias));
typedef uint16_t vus __attribute__((vector_size(VL * 2), aligned(2), may_alias));

COOLVID_INLINE vi load(const int32_t* p) { return *(const vi*)p; }
COOLVID_INLINE void store(int32_t* p, vi v) { *(vi*)p = v; }
COOLVID_INLINE vi widen(const int16_t* p) { return __builtin_convertvector(*(const vs*)p, vi); }
// GCC 12 takes the conversions of its vector extension apart where one instruction would do: hence the intrinsics.
COOLVID_INLINE vi widen_unsigned(const int16_t* p) {
#if defined(__x86_64__) && COOLVID_VL == 16
  return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__x86_64__) && COOLVID_VL == 8
  return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
#else
  return (vi)__builtin_convertvector(*(const vus*)p, vu);
#endif
}
// Each lane limited to int16.
COOLVID_INLINE void store_saturated(int16_t* p, vi v) {
#if defined(__x86_64__) && COOLVID_VL == 16
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16((__m512i)v));
#elif defined(__x86_64__) && COOLVID_VL == 8
  const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)v, (__m256i)v), 0x88);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(both));
#elif defined(__x86_64__) && COOLVID_VL == 4
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi32((__m128i)v, (__m128i)v));
#else
  v = v < -32768 ? vi{} - 32768 : v;
  *(vs*)p = __builtin_convertvector(v > 32767 ? vi{} + 32767 : v, vs);
#endif
}
// from[at] of every lane.
COOLVID_INLINE vi gathered(const int32_t* from, vi at) {
#if defined(__x86_64__) && COOLVID_VL == 16
  return (vi)_mm512_i32gather_epi32((__m512i)at, from, 4);
#elif defined(__x86_64__) && COOLVID_VL == 8
  return (vi)_mm256_i32gather_epi32(from, (__m256i)at, 4);
#else
  vi v;
  for (int i = 0; i < VL; i++) v[i] = from[at[i]];
  return v;
#endif
}
COOLVID_INLINE vi vclamp(vi v, int32_t low, int32_t high) {
  v = v < low ? vi{} + low : v;
  return v > high ? vi{} + high : v;
}

// Lanes of (low, high) int16 values.
COOLVID_INLINE vi paired(vi low, vi high) { return (low & 0xffff) | (vi)((vu)high << 16); }
COOLVID_INLINE vi paired(const int16_t* low, const int16_t* high) {
  return widen_unsigned(low) | (vi)((vu)widen_unsigned(high) << 16);
}
inline int32_t paired(int32_t low, int32_t high) {
  return static_cast<int32_t>((static_cast<uint32_t>(low) & 0xffff) | static_cast<uint32_t>(high) << 16);
}

// low(a) low(b) + high(a) high(b) of every lane.
COOLVID_INLINE vi madd(vi a, vi b) {
#if defined(__x86_64__) && COOLVID_VL == 16
  return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__x86_64__) && COOLVID_VL == 8
  return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__) && COOLVID_VL == 4
  return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return ((vi)((vu)a << 16) >> 16) * ((vi)((vu)b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// An accumulator times 2**-shift, rounded (halves up), that the caller limits to +-2**limit_bits afterwards.
// In two steps and limited before a shift to the left, so that nothing overflows.
class Rounding {
 public:
  Rounding(int shift, int limit_bits) : right_(std::min(shift, 32)), left_(std::min(-shift, limit_bits)) {
    if (right_ <= 0) limit_ = (1 << limit_bits) >> left_;
  }
  __attribute__((always_inline)) vi operator()(vi v) const {
    return right_ > 0 ? ((v >> (right_ - 1)) + 1) >> 1 : vclamp(v, -limit_, limit_) << left_;
  }

 private:
  int right_, left_, limit_ = 0;
};

COOLVID_INLINE vi positive(vi v) { return v > 0 ? v : vi{}; }
COOLVID_INLINE vi saturate16(vi v) { return vclamp(v, -32768, 32767); }

// A linear map of pairs. weights: [pair][output], as pairs.
struct IntegerLayer {
  int n_in = 0, n_out = 0, shift = 0;
  std::vector<int32_t> weights, bias;
  bool exists() const { return n_out > 0; }
  int pairs() const { return static_cast<int>(weights.size()) / std::max(n_out, 1); }
};

// Lanes of (low, high), each limited to int16.
COOLVID_INLINE vi saturated_pair(vi low, vi high) {
#if defined(__x86_64__) && COOLVID_VL == 16
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  return (vi)_mm512_shuffle_epi8(_mm512_packs_epi32((__m512i)low, (__m512i)high), order);
#elif defined(__x86_64__) && COOLVID_VL == 8
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  return (vi)_mm256_shuffle_epi8(_mm256_packs_epi32((__m256i)low, (__m256i)high), order);
#elif defined(__x86_64__) && COOLVID_VL == 4
  const __m128i both = _mm_packs_epi32((__m128i)low, (__m128i)high);
  return (vi)_mm_unpacklo_epi16(both, _mm_srli_si128(both, 8));
#else
  return paired(saturate16(low), saturate16(high));
#endif
}

// Two accumulators times 2**-shift, rounded (halves up), each limited to int16: lanes of (low, high).
class Narrowing {
 public:
  explicit Narrowing(int shift) : any_(shift, 15), shift_(shift), half_(is_usual() ? 1 << (shift - 1) : 0) {}
  __attribute__((always_inline)) vi operator()(vi low, vi high) const {
    // Accumulators stay within 2**30 (coolvid/fixedpoint.py), so that adding the half cannot overflow.
    return is_usual() ? saturated_pair((low + half_) >> shift_, (high + half_) >> shift_) : saturated_pair(any_(low), any_(high));
  }

 private:
  bool is_usual() const { return shift_ > 0 && shift_ <= 30; }
  Rounding any_;
  int shift_, half_;
};

// Adds to the accumulators of outputs m and `next` for one vector of positions, from n on; no bias.
COOLVID_INLINE void madd_two(const IntegerLayer& layer, int pairs, int m, int next, const int32_t* const* x, int n, vi& a, vi& b) {
  const int32_t* w = layer.weights.data();
#pragma GCC unroll 1
  for (int k = 0; k < pairs; k++, w += layer.n_out) {
    const vi xv = load(x[k] + n);
    a += madd(xv, vi{} + w[m]), b += madd(xv, vi{} + w[next]);
  }
}

template <int MT, int NV, class Out>
COOLVID_INLINE void madd_tile(const IntegerLayer& layer, int m0, const int32_t* const* x, int n, Out& out) {
  const int ldw = layer.n_out, pairs = layer.pairs();
  const int32_t* w = layer.weights.data() + m0;
  vi acc[MT + 1][NV];  // one more than there is, for the last pair
  for (int m = 0; m < MT; m++)
    for (int v = 0; v < NV; v++) acc[m][v] = vi{} + layer.bias[m0 + m];
  for (int v = 0; v < NV; v++) acc[MT][v] = vi{};
#pragma GCC unroll 1
  for (int k = 0; k < pairs; k++) {
    vi xv[NV];
    for (int v = 0; v < NV; v++) xv[v] = load(x[k] + n + v * VL);
#pragma GCC unroll 16
    for (int m = 0; m < MT; m++) {
      vi wk = vi{} + w[k * ldw + m];
      for (int v = 0; v < NV; v++) acc[m][v] += madd(xv[v], wk);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MT; m += 2)
    for (int v = 0; v < NV; v++) out(m0 + m, n + v * VL, acc[m][v], acc[m + 1][v]);
}

template <int MT, class Out>
COOLVID_INLINE void madd_rows(int mt, const IntegerLayer& layer, int m0, const int32_t* const* x, int n, Out& out) {
  if (mt != MT) {
    if constexpr (MT > 1) madd_rows<MT - 1>(mt, layer, m0, x, n, out);
    return;
  }
  int i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) madd_tile<MT, 2>(layer, m0, x, i, out);
  for (; i < n; i += VL) madd_tile<MT, 1>(layer, m0, x, i, out);
}

// out(m, position, accumulator of m, accumulator of m + 1) for every second output m and every vector of the n positions;
// behind the last output comes 0. x: a row for each pair, readable, and out's target writable, up to the next multiple of VL.
template <class Out>
COOLVID_INLINE void madd_product(const IntegerLayer& layer, const int32_t* const* x, int n, Out out) {
  constexpr int most = MAX_TILE / 2 * 2;
  const int tiles = (layer.n_out + most - 1) / most, rows = ((layer.n_out + tiles - 1) / tiles + 1) / 2 * 2;
  for (int m0 = 0; m0 < layer.n_out; m0 += rows) madd_rows<most>(std::min(rows, layer.n_out - m0), layer, m0, x, n, out);
}

}  // namespace coolvid::integer
