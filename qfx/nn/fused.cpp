// The cast of qfx/nn/functional.py in one pass over memory: rounding RND, overflow by saturation, one binary point.
//
//   code = clamp(floor(v) + (v - floor(v) >= 1/2), low, high),  v = x * scale,  y = code / scale
//
// Backward, in range: dx = grad, slope = x - y; clipped: dx = grad * 0, slope = -y. Every operation is that of the
// formula in torch, in its order, so that the results are the same bits; hence no contraction to fused multiply-adds.
#include <cmath>
#include <cstdint>

#if defined(__x86_64__)
#define QFX_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QFX_CLONES
#endif

namespace {

constexpr std::int64_t kChunk = 1 << 15;  // values, of which three arrays fit the second-level cache

struct Format {
  float scale, inverse, low, high;
};

inline float rounded(float v) {
  const float below = std::floor(v);
  return below + (v - below >= 0.5f ? 1.0f : 0.0f);
}

inline float clamped(float code, const Format &f) {
  return code < f.low ? f.low : code > f.high ? f.high : code;  // NaN passes
}

QFX_CLONES void forward(const float *__restrict x, float *__restrict y, std::int64_t count, Format f) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = clamped(rounded(x[i] * f.scale), f) * f.inverse;
}

QFX_CLONES void backward(const float *__restrict x, const float *__restrict grad, float *__restrict to_x,
                         float *__restrict to_frac, std::int64_t count, Format f) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float code = rounded(x[i] * f.scale), kept = clamped(code, f);
    const bool inside = code == kept;
    to_x[i] = grad[i] * (inside ? 1.0f : 0.0f);
    to_frac[i] = grad[i] * ((inside ? x[i] : 0.0f) - kept * f.inverse);
  }
}

template <typename Part>
void in_chunks(std::int64_t count, int threads, const Part &part) {
#pragma omp parallel for num_threads(threads) schedule(static) if (count > kChunk)
  for (std::int64_t start = 0; start < count; start += kChunk) {
    part(start, count - start < kChunk ? count - start : kChunk);
  }
}

}  // namespace

extern "C" {

void qfx_cast(const float *x, float *y, std::int64_t count, float scale, float low, float high, int threads) {
  const Format f{scale, 1.0f / scale, low, high};
  in_chunks(count, threads, [&](std::int64_t at, std::int64_t n) { forward(x + at, y + at, n, f); });
}

void qfx_cast_backward(const float *x, const float *grad, float *to_x, float *to_frac, std::int64_t count, float scale,
                       float low, float high, int threads) {
  const Format f{scale, 1.0f / scale, low, high};
  in_chunks(count, threads,
            [&](std::int64_t at, std::int64_t n) { backward(x + at, grad + at, to_x + at, to_frac + at, n, f); });
}
}
