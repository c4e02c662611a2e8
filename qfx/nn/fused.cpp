// The cast of qfx/nn/functional.py in one pass over memory: rounding RND, overflow by saturation.
//
//   code = clamp(floor(v) + (v - floor(v) >= 1/2), low, high),  v = x * 2^frac,  y = code * 2^-frac
//
// Backward, in range: dx = grad, slope = x - y; clipped: dx = grad * 0, slope = -y; dfrac = sum(grad * slope). A tensor is
// `rows` of `count` values, each row with a binary point of its own. Values and dx are those of the formula in torch,
// bit for bit, in double precision (forward only) too, hence no contraction to fused multiply-adds; dfrac is summed in double precision, by blocks of fixed size
// in their order, so that it does not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fused.hpp"

namespace {

constexpr std::int64_t kChunk = 1 << 15;  // values, of which three arrays fit the second-level cache
constexpr int kLanes = 16;                // partial sums of a chunk

QFX_CLONES void forward(const float *__restrict x, float *__restrict y, std::int64_t count, Format f) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = f.cast(x[i]);
}

QFX_CLONES void forward(const double *__restrict x, double *__restrict y, std::int64_t count, FormatOf<double> f) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = f.cast(x[i]);
}

QFX_CLONES double backward(const float *__restrict x, const float *__restrict grad, float *__restrict to_x,
                           std::int64_t count, Format f) {
  double total = 0.0;
  for (std::int64_t start = 0; start < count; start += 64 * kLanes) {
    const std::int64_t end = std::min(count, start + 64 * kLanes);
    float sums[kLanes] = {};
    std::int64_t i = start;
    for (; i + kLanes <= end; i += kLanes)
      for (int k = 0; k < kLanes; ++k) {
        const Slope s = f.slope(x[i + k]);
        to_x[i + k] = grad[i + k] * s.inside;
        sums[k] += grad[i + k] * s.frac;
      }
    for (int k = 0; i < end; ++i, ++k) {
      const Slope s = f.slope(x[i]);
      to_x[i] = grad[i] * s.inside;
      sums[k] += grad[i] * s.frac;
    }
    for (int k = 0; k < kLanes; ++k) total += sums[k];
  }
  return total;
}

/// Call part(row, first value, number of values, block) for blocks of at most kChunk values of a row.
template <typename Part>
void in_blocks(std::int64_t rows, std::int64_t count, int threads, const Part &part) {
  const std::int64_t each = (count + kChunk - 1) / kChunk;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * count > kChunk)
  for (std::int64_t block = 0; block < rows * each; ++block) {
    const std::int64_t row = block / each, start = block % each * kChunk;
    part(row, row * count + start, std::min(kChunk, count - start), block);
  }
}

}  // namespace

extern "C" {

void qfx_cast(const float *x, const float *frac, float *y, std::int64_t rows, std::int64_t count, float low, float high,
              int threads) {
  in_blocks(rows, count, threads, [&](std::int64_t row, std::int64_t at, std::int64_t n, std::int64_t) {
    forward(x + at, y + at, n, Format(frac[row], low, high));
  });
}

void qfx_cast_double(const double *x, const float *frac, double *y, std::int64_t rows, std::int64_t count, double low,
                     double high, int threads) {
  in_blocks(rows, count, threads, [&](std::int64_t row, std::int64_t at, std::int64_t n, std::int64_t) {
    forward(x + at, y + at, n, FormatOf<double>(frac[row], low, high));
  });
}

void qfx_cast_backward(const float *x, const float *frac, const float *grad, float *to_x, float *to_frac,
                       std::int64_t rows, std::int64_t count, float low, float high, int threads) {
  const std::int64_t each = (count + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<std::size_t>(rows * each));
  in_blocks(rows, count, threads, [&](std::int64_t row, std::int64_t at, std::int64_t n, std::int64_t block) {
    sums[block] = backward(x + at, grad + at, to_x + at, n, Format(frac[row], low, high));
  });
  for (std::int64_t row = 0; row < rows; ++row) {
    double total = 0.0;
    for (std::int64_t i = 0; i < each; ++i) total += sums[row * each + i];
    to_frac[row] = static_cast<float>(total);
  }
}
}
