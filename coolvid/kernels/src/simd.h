// Vectors of COOLVID_VL floats in the vector extension of GCC and clang, and the few transcendental functions that training needs.
// One source serves every instruction set: 16 lanes for AVX-512, 8 for AVX2, 4 otherwise.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#ifndef COOLVID_VL
#define COOLVID_VL 4
#endif

namespace coolvid {

constexpr int VL = COOLVID_VL;
typedef float vf __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define COOLVID_INLINE static inline __attribute__((always_inline))

COOLVID_INLINE vf load(const float* p) { return *(const vf*)p; }
COOLVID_INLINE void store(float* p, vf v) { *(vf*)p = v; }
// The first n <= VL lanes, for the ends of arrays; the others are 0, or not written.
COOLVID_INLINE vf load_some(const float* p, size_t n) {
  if (n >= VL) return load(p);
  vf v = {};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}
COOLVID_INLINE void store_some(float* p, vf v, size_t n) {
  if (n >= VL) store(p, v);
  else std::memcpy(p, &v, n * sizeof(float));
}
COOLVID_INLINE vf splat(float x) { return vf{} + x; }
COOLVID_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
COOLVID_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
COOLVID_INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }
COOLVID_INLINE vf vfloor(vf x) {
  vf f = __builtin_convertvector(__builtin_convertvector(x, vi), vf);
  return f > x ? f - 1.f : f;
}
COOLVID_INLINE vi lanes() {
  vi v;
  for (int i = 0; i < VL; i++) v[i] = i;
  return v;
}
// Lanes of a and b, numbered through from a[0]: lane i becomes number at(i). `at` captures nothing.
template <class V, class At, int... I>
COOLVID_INLINE V shuffled_lanes(V a, V b, At, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, At{}(I)...);
#else
  typedef int32_t order __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, order{At{}(I)...});
#endif
}
template <class V, class At>
COOLVID_INLINE V shuffled(V a, V b, At at) {
  return shuffled_lanes(a, b, at, std::make_integer_sequence<int, sizeof(V) / 4>{});
}
COOLVID_INLINE vf twice(vf a) {  // the lower half, every lane twice
  return shuffled(a, a, [](int i) { return i / 2; });
}
COOLVID_INLINE vf swapped_neighbours(vf a) {
  return shuffled(a, a, [](int i) { return i ^ 1; });
}
COOLVID_INLINE vf even_lanes(vf a, vf b) {
  return shuffled(a, b, [](int i) { return 2 * i; });
}
COOLVID_INLINE vf odd_lanes(vf a, vf b) {
  return shuffled(a, b, [](int i) { return 2 * i + 1; });
}
COOLVID_INLINE vf zipped_low(vf a, vf b) {  // a[0], b[0], a[1], b[1], ...
  return shuffled(a, b, [](int i) { return i / 2 + i % 2 * VL; });
}
COOLVID_INLINE vf zipped_high(vf a, vf b) {  // the same from the middle on
  return shuffled(a, b, [](int i) { return VL / 2 + i / 2 + i % 2 * VL; });
}
COOLVID_INLINE float hsum(vf a) {
  float s = 0;
  for (int i = 0; i < VL; i++) s += a[i];
  return s;
}

// e^x for |x| <= 87, relative error about 1e-7: reduction by ln 2 in two parts, polynomial of degree 7 (Taylor-like minimax).
COOLVID_INLINE vf vexp(vf x) {
  x = vmax(vmin(x, splat(87.f)), splat(-87.f));
  vf k = (x * 1.44269504f + 12582912.f) - 12582912.f;
  vf r = x - k * 0.693145752f - k * 1.42860677e-6f;
  vf p = splat(1.98412698e-4f);
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  return p * (vf)((__builtin_convertvector(k, vi) + 127) << 23);
}

// log2(x) of a normal x > 0: mantissa m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh((m - 1) / (m + 1)).
COOLVID_INLINE vf vlog2(vf x) {
  vi bits = (vi)x;
  vi e = (bits - 0x3f3504f3) >> 23;
  vf m = (vf)(bits - (e << 23));
  vf s = (m - 1.f) / (m + 1.f), z = s * s;
  vf p = splat(1.f / 9.f);
  p = p * z + 1.f / 7.f;
  p = p * z + 1.f / 5.f;
  p = p * z + 1.f / 3.f;
  p = p * z + 1.f;
  return 2.88539008f * s * p + __builtin_convertvector(e, vf);
}

COOLVID_INLINE vf vtanh(vf x) { return 1.f - 2.f / (vexp(2.f * x) + 1.f); }

// Memory aligned to cache lines, zeroed, with room to read one vector beyond its end.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t n) { resize(n); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { std::swap(data_, other.data_), std::swap(size_, other.size_); }
  Buffer& operator=(Buffer&& other) noexcept { return std::swap(data_, other.data_), std::swap(size_, other.size_), *this; }
  ~Buffer() { std::free(data_); }
  void resize(size_t n) {
    std::free(data_);
    size_t bytes = (n * sizeof(T) + 63) / 64 * 64 + 256;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
    std::memset(data_, 0, bytes);
    size_ = n;
  }
  void clear() { std::memset(data_, 0, size_ * sizeof(T)); }
  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace coolvid
