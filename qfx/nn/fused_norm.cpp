// BatchNorm in fixed point, in one pass over memory for each of its parts (qfx/nn/fused_norm.py).
//
//   moments:  mean[c], var[c] of x[., c, .]
//   lines:    y = base + (x * slope[c] + constant[c]), which is the backward of moments
//   affine:   y = cast(x * scale[c] + shift[c]), or the codes of y in a byte each, with 1, or NaN where one is NaN;
//             and its backward: dx, dscale, dshift, dfrac
//
// A tensor is `outer` blocks of `channels` runs of `inner` values: (N, C, H * W) as it stands, or (N * H * W, C, 1)
// channels last. Sums are taken over blocks of fixed size, in single precision within a block and in double precision
// from block to block, in their order: results do not depend on the number of threads. y has the bits of the formula
// (no contraction to fused multiply-adds); sums differ from torch's in their rounding.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "fused.hpp"

namespace {

constexpr std::int64_t kBlock = 1 << 13;  // values of a block, about
constexpr int kLanes = 16;                // partial sums of a run

struct Layout {
  std::int64_t outer, channels, inner;
  std::int64_t pitch() const { return channels * inner; }
  std::int64_t rows() const { return std::max<std::int64_t>(1, kBlock / pitch()); }  // of outer in a block
  std::int64_t blocks() const { return (outer + rows() - 1) / rows(); }
};

/// Call part(first channel, number of channels) for panels of kLanes channels that lie side by side, and for each left.
template <typename Part>
inline __attribute__((always_inline)) void in_panels(std::int64_t channels, const Part &part) {
  std::int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) part(c, std::integral_constant<int, kLanes>());
  for (; c < channels; ++c) part(c, std::integral_constant<int, 1>());
}

/// Sums of x - from[c] and of its square over rows first .. last - 1, added to sum and square.
QFX_CLONES void block_moments(const float *__restrict x, const float *__restrict from, float *__restrict sum,
                              float *__restrict square, Layout l, std::int64_t first, std::int64_t last) {
  if (l.inner == 1) {
    in_panels(l.channels, [=](std::int64_t c, auto width) __attribute__((always_inline)) {
      float s[width] = {}, q[width] = {};
      for (std::int64_t row = first; row < last; ++row)
#pragma omp simd
        for (int k = 0; k < width; ++k) {
          const float d = x[row * l.channels + c + k] - from[c + k];
          s[k] += d;
          q[k] += d * d;
        }
      for (int k = 0; k < width; ++k) sum[c + k] += s[k], square[c + k] += q[k];
    });
    return;
  }
  for (std::int64_t row = first; row < last; ++row) {
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const float *__restrict at = x + row * l.pitch() + c * l.inner;
      float s[kLanes] = {}, q[kLanes] = {};
      std::int64_t i = 0;
      for (; i + kLanes <= l.inner; i += kLanes)
        for (int k = 0; k < kLanes; ++k) {
          const float d = at[i + k] - from[c];
          s[k] += d;
          q[k] += d * d;
        }
      for (int k = 0; i < l.inner; ++i, ++k) {
        const float d = at[i] - from[c];
        s[k] += d;
        q[k] += d * d;
      }
      for (int k = 0; k < kLanes; ++k) sum[c] += s[k], square[c] += q[k];
    }
  }
}

QFX_CLONES void block_lines(const float *__restrict base, const float *__restrict x, const float *__restrict slope,
                            const float *__restrict constant, float *__restrict y, Layout l, std::int64_t first,
                            std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    if (l.inner == 1) {
      const std::int64_t at = row * l.channels;
      for (std::int64_t c = 0; c < l.channels; ++c) y[at + c] = base[at + c] + (x[at + c] * slope[c] + constant[c]);
    } else {
      for (std::int64_t c = 0; c < l.channels; ++c) {
        const std::int64_t at = row * l.pitch() + c * l.inner;
        const float a = slope[c], b = constant[c];
        for (std::int64_t i = 0; i < l.inner; ++i) y[at + i] = base[at + i] + (x[at + i] * a + b);
      }
    }
  }
}

inline void store(const Format &f, float v, float *y) { *y = f.cast(v); }
template <typename Code>
inline void store(const Format &f, float v, Code *y) {
  *y = static_cast<Code>(static_cast<std::int32_t>(f.clamped(f.rounded(v))));
}

/// y = cast(x * scale[c] + shift[c]), or its codes where y holds integers; return whether there is a NaN.
template <typename Result>
inline __attribute__((always_inline)) bool affine_values(const float *__restrict x, const float *__restrict scale,
                                                         const float *__restrict shift, Result *__restrict y,
                                                         const Format &f, const Layout &l, std::int64_t first,
                                                         std::int64_t last) {
  int nan = 0;
  for (std::int64_t row = first; row < last; ++row) {
    if (l.inner == 1) {
      const std::int64_t at = row * l.channels;
      for (std::int64_t c = 0; c < l.channels; ++c) {
        const float v = x[at + c] * scale[c] + shift[c];
        nan |= v != v;
        store(f, v, y + at + c);
      }
    } else {
      for (std::int64_t c = 0; c < l.channels; ++c) {
        const std::int64_t at = row * l.pitch() + c * l.inner;
        const float a = scale[c], b = shift[c];
        for (std::int64_t i = 0; i < l.inner; ++i) {
          const float v = x[at + i] * a + b;
          nan |= v != v;
          store(f, v, y + at + i);
        }
      }
    }
  }
  return nan != 0;
}

QFX_CLONES bool block_affine(const float *x, const float *scale, const float *shift, float *y, Format f, Layout l,
                             std::int64_t first, std::int64_t last) {
  return affine_values(x, scale, shift, y, f, l, first, last);
}

QFX_CLONES bool block_affine(const float *x, const float *scale, const float *shift, std::int8_t *y, Format f, Layout l,
                             std::int64_t first, std::int64_t last) {
  return affine_values(x, scale, shift, y, f, l, first, last);
}

QFX_CLONES bool block_affine(const float *x, const float *scale, const float *shift, std::uint8_t *y, Format f,
                             Layout l, std::int64_t first, std::int64_t last) {
  return affine_values(x, scale, shift, y, f, l, first, last);
}

/// One value of affine's backward: dx, and what it adds to dscale, dshift and dfrac.
struct Slopes {
  float x, scale, shift, frac;
};

inline Slopes slopes(float x, float grad, float scale, float shift, const Format &f) {
  const Slope s = f.slope(x * scale + shift);
  const float passed = grad * s.inside;
  return {passed * scale, passed * x, passed, grad * s.frac};
}

template <bool kStores>
inline __attribute__((always_inline)) void affine_slopes(const float *__restrict x, const float *__restrict grad,
                                      const float *__restrict scale, const float *__restrict shift,
                                      float *__restrict to_x, float *__restrict to_scale, float *__restrict to_shift,
                                      float *__restrict to_frac, Format f, Layout l, std::int64_t first,
                                      std::int64_t last) {
  if (l.inner == 1) {
    in_panels(l.channels, [=](std::int64_t c, auto width) __attribute__((always_inline)) {
      float p[width] = {}, q[width] = {}, r[width] = {};
      for (std::int64_t row = first; row < last; ++row)
#pragma omp simd
        for (int k = 0; k < width; ++k) {
          const std::int64_t at = row * l.channels + c + k;
          const Slopes s = slopes(x[at], grad[at], scale[c + k], shift[c + k], f);
          if (kStores) to_x[at] = s.x;
          p[k] += s.scale;
          q[k] += s.shift;
          r[k] += s.frac;
        }
      for (int k = 0; k < width; ++k) to_scale[c + k] += p[k], to_shift[c + k] += q[k], to_frac[c + k] += r[k];
    });
    return;
  }
  for (std::int64_t row = first; row < last; ++row) {
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const std::int64_t at = row * l.pitch() + c * l.inner;
      float p[kLanes] = {}, q[kLanes] = {}, r[kLanes] = {};
      std::int64_t i = 0;
      for (; i + kLanes <= l.inner; i += kLanes)
        for (int k = 0; k < kLanes; ++k) {
          const Slopes s = slopes(x[at + i + k], grad[at + i + k], scale[c], shift[c], f);
          if (kStores) to_x[at + i + k] = s.x;
          p[k] += s.scale;
          q[k] += s.shift;
          r[k] += s.frac;
        }
      for (int k = 0; i < l.inner; ++i, ++k) {
        const Slopes s = slopes(x[at + i], grad[at + i], scale[c], shift[c], f);
        if (kStores) to_x[at + i] = s.x;
        p[k] += s.scale;
        q[k] += s.shift;
        r[k] += s.frac;
      }
      for (int k = 0; k < kLanes; ++k) to_scale[c] += p[k], to_shift[c] += q[k], to_frac[c] += r[k];
    }
  }
}

/// Without a place for dx only the sums are made.
QFX_CLONES void block_affine_backward(const float *x, const float *grad, const float *scale, const float *shift,
                                      float *to_x, float *to_scale, float *to_shift, float *to_frac, Format f, Layout l,
                                      std::int64_t first, std::int64_t last) {
  if (to_x)
    affine_slopes<true>(x, grad, scale, shift, to_x, to_scale, to_shift, to_frac, f, l, first, last);
  else
    affine_slopes<false>(x, grad, scale, shift, to_x, to_scale, to_shift, to_frac, f, l, first, last);
}

/// Call part(first, last, sums) for each block of rows; return the sums of all blocks, `count` for each channel.
template <typename Part>
std::vector<double> over_blocks(Layout l, int count, int threads, const Part &part) {
  const std::int64_t width = count * l.channels, blocks = l.blocks(), rows = l.rows();
  std::vector<float> partial(static_cast<std::size_t>(blocks * width), 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static) if (blocks > 1)
  for (std::int64_t block = 0; block < blocks; ++block)
    part(block * rows, std::min(l.outer, (block + 1) * rows), partial.data() + block * width);
  std::vector<double> total(static_cast<std::size_t>(width), 0.0);
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t i = 0; i < width; ++i) total[i] += partial[block * width + i];
  return total;
}

}  // namespace

extern "C" {

void qfx_moments(const float *x, float *mean, float *var, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                 int threads) {
  const Layout l{outer, channels, inner};
  std::vector<float> from(static_cast<std::size_t>(channels));  // any value of the channel keeps the squares small
  for (std::int64_t c = 0; c < channels; ++c) from[c] = x[c * inner];
  const auto total = over_blocks(l, 2, threads, [&](std::int64_t a, std::int64_t b, float *sums) {
    block_moments(x, from.data(), sums, sums + channels, l, a, b);
  });
  const double n = static_cast<double>(outer * inner);
  for (std::int64_t c = 0; c < channels; ++c) {
    const double shifted = total[c] / n;
    mean[c] = static_cast<float>(from[c] + shifted);
    const double squares = total[channels + c] / n - shifted * shifted;
    var[c] = static_cast<float>(squares < 0.0 ? 0.0 : squares);  // NaN passes
  }
}

void qfx_lines(const float *base, const float *x, const float *slope, const float *constant, float *y,
               std::int64_t outer, std::int64_t channels, std::int64_t inner, int threads) {
  const Layout l{outer, channels, inner};
  over_blocks(l, 0, threads, [&](std::int64_t a, std::int64_t b, float *) {
    block_lines(base, x, slope, constant, y, l, a, b);
  });
}

void qfx_affine(const float *x, const float *scale, const float *shift, const float *frac, float *y, std::int64_t outer,
                std::int64_t channels, std::int64_t inner, float low, float high, int threads) {
  const Layout l{outer, channels, inner};
  const Format f(*frac, low, high);
  over_blocks(l, 0, threads,
              [&](std::int64_t a, std::int64_t b, float *) { block_affine(x, scale, shift, y, f, l, a, b); });
}

void qfx_affine_codes(const float *x, const float *scale, const float *shift, const float *frac, void *codes,
                      float *valid, std::int64_t outer, std::int64_t channels, std::int64_t inner, float low, float high,
                      int threads) {
  const Layout l{outer, channels, inner};
  const Format f(*frac, low, high);
  const auto nans = over_blocks(l, 1, threads, [&](std::int64_t a, std::int64_t b, float *nan) {
    *nan = low < 0 ? block_affine(x, scale, shift, static_cast<std::int8_t *>(codes), f, l, a, b)
                   : block_affine(x, scale, shift, static_cast<std::uint8_t *>(codes), f, l, a, b);
  });
  *valid = nans[0] > 0 || std::isnan(*frac) ? std::nanf("") : 1.0f;
}

void qfx_affine_backward(const float *x, const float *grad, const float *scale, const float *shift,
                         const float *frac, float *to_x, float *to_scale, float *to_shift, float *to_frac,
                         std::int64_t outer, std::int64_t channels, std::int64_t inner, float low, float high,
                         int threads) {
  const Layout l{outer, channels, inner};
  const Format f(*frac, low, high);
  const auto total = over_blocks(l, 3, threads, [&](std::int64_t a, std::int64_t b, float *sums) {
    block_affine_backward(x, grad, scale, shift, to_x, sums, sums + channels, sums + 2 * channels, f, l, a, b);
  });
  double sum = 0.0;
  for (std::int64_t c = 0; c < channels; ++c) {
    to_scale[c] = static_cast<float>(total[c]);
    to_shift[c] = static_cast<float>(total[channels + c]);
    sum += total[2 * channels + c];
  }
  *to_frac = static_cast<float>(sum);
}
}
