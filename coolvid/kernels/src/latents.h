// The training side of the latent grids: noise from a counter, and soft rounding with its derivative.
#pragma once
#include "pool.h"
#include "simd.h"

namespace coolvid {

enum class Noise { none, gaussian, kumaraswamy };

// A well-mixed 32-bit hash (the "lowbias32" constants): the counter-based generator behind all training noise.
COOLVID_INLINE vu mix(vu x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

COOLVID_INLINE vf uniform(vu bits) {  // in (0, 1)
  return (__builtin_convertvector((vi)(bits >> 9), vf) + 0.5f) * 1.1920929e-7f;
}

COOLVID_INLINE vf cos_two_pi(vf u) {  // u in [0, 1): cos(2 pi u) = sin(2 pi (|u - 1/2| - 1/4))
  vf x = (vabs(u - 0.5f) - 0.25f) * 6.283185307f, z = x * x;
  vf p = splat(-2.50521084e-8f);
  p = p * z + 2.75573192e-6f;
  p = p * z - 1.98412698e-4f;
  p = p * z + 8.33333333e-3f;
  p = p * z - 1.66666667e-1f;
  return x + x * z * p;
}

// Noise for latents i .. i + VL - 1 of the draw `key`.
COOLVID_INLINE vf noise(Noise kind, float parameter, uint32_t key, uint32_t i) {
  if (kind == Noise::none) return vf{};
  vu counter = (vu)lanes() + i;
  vu first = mix(counter ^ mix(vu{} + key));
  vf u = uniform(first);
  if (kind == Noise::gaussian) {
    vf radius = -1.38629436f * vlog2(u);
    for (int k = 0; k < VL; k++) radius[k] = std::sqrt(radius[k]);
    return parameter * radius * cos_two_pi(uniform(mix(first + 0x9e3779b9u)));
  }
  float a = parameter, b = (std::pow(2.f, a) * (a - 1.f) + 1.f) / a;
  vf inner = 1.f - vexp(0.693147181f / b * vlog2(1.f - u));
  inner = vmax(inner, splat(1e-30f));
  return vexp(0.693147181f / a * vlog2(inner)) - 0.5f;
}

COOLVID_INLINE vf soft_round(vf x, float t, float scale, vf& slope) {
  vf f = vfloor(x), e = vexp(2.f / t * (x - f - 0.5f)), rest = 1.f / (e + 1.f);  // tanh = 1 - 2 rest
  slope = 4.f * scale / t * (e * rest) * rest;
  return f + (scale * (1.f - 2.f * rest) + 0.5f);  // rounded once at the size of x
}

constexpr int LATENT_CHUNK = 1 << 14;

// Calls f(start, end) for parts of n latents.
template <class F>
inline void latent_chunks(Pool& pool, size_t n, F&& f) {
  pool.run(static_cast<int>((n + LATENT_CHUNK - 1) / LATENT_CHUNK), [&](int chunk, int) {
    f(static_cast<size_t>(chunk) * LATENT_CHUNK, std::min(n, static_cast<size_t>(chunk + 1) * LATENT_CHUNK));
  });
}

// q [n] = softround(gain x), or softround(softround(gain x) + noise) where noise is given, and dq = its derivative by x.
inline void soft_round_all(Pool& pool, float t, float gain, const float* x, const float* noise, float* q, float* dq,
                           size_t n) {
  float scale = 0.5f / std::tanh(0.5f / t);
  latent_chunks(pool, n, [&](size_t start, size_t end) {
    for (size_t i = start; i < end; i += VL) {
      vf slope, slope2 = splat(1.f);
      vf out = soft_round(gain * load_some(x + i, end - i), t, scale, slope);
      if (noise) out = soft_round(out + load_some(noise + i, end - i), t, scale, slope2);
      store_some(q + i, out, end - i);
      store_some(dq + i, gain * slope * slope2, end - i);
    }
  });
}

// out [n] = (a + b) slope.
inline void add_and_scale(Pool& pool, const float* a, const float* b, const float* slope, float* out, size_t n) {
  latent_chunks(pool, n, [&](size_t start, size_t end) {
    for (size_t i = start; i < end; i++) out[i] = (a[i] + b[i]) * slope[i];
  });
}

// One step of Adam (arXiv 1412.6980, algorithm 1); first_correction, second_correction: 1 - beta^t.
struct AdamStep {
  float lr, beta1, beta2, eps, first_correction, second_correction;
};

inline void adam(Pool& pool, const AdamStep& step, const float* __restrict gradient, float* __restrict values,
                 float* __restrict first, float* __restrict second, size_t n) {
  float rate = step.lr / step.first_correction, root = std::sqrt(step.second_correction);
  latent_chunks(pool, n, [&](size_t start, size_t end) {
    for (size_t i = start; i < end; i++) {
      float g = gradient[i];
      first[i] += (1.f - step.beta1) * (g - first[i]);
      second[i] = step.beta2 * second[i] + (1.f - step.beta2) * g * g;
      values[i] -= rate * first[i] / (std::sqrt(second[i]) / root + step.eps);
    }
  });
}

inline void fill_noise(Pool& pool, Noise kind, float parameter, uint32_t key, float* out, size_t n) {
  latent_chunks(pool, n, [&](size_t start, size_t end) {
    for (size_t i = start; i < end; i += VL)
      store_some(out + i, noise(kind, parameter, key, static_cast<uint32_t>(i)), end - i);
  });
}

}  // namespace coolvid
