// One fixed-point format and its cast, for the kernels beside this file.
#pragma once

#include <algorithm>
#include <cmath>

#if defined(__x86_64__)
#define QFX_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QFX_CLONES
#endif

namespace {

/// What a value adds to gradients: 1 in range and 0 where clipped, and the slope of its cast along frac.
struct Slope {
  float inside, frac;
};

/// Codes low .. high of value code * 2^-frac; a real frac is rounded, half to even, and held within -21 .. 21.
struct Format {
  float scale, inverse, low, high;

  Format(float frac, float low, float high) : low(low), high(high) {
    const float integer = std::nearbyint(frac);
    scale = std::exp2(integer < -21.0f ? -21.0f : integer > 21.0f ? 21.0f : integer);  // NaN passes, here and below
    inverse = 1.0f / scale;
  }

  float rounded(float x) const {
    const float v = x * scale, below = std::floor(v);
    return below + (v - below >= 0.5f ? 1.0f : 0.0f);
  }

  float clamped(float code) const { return code < low ? low : code > high ? high : code; }

  float cast(float x) const { return clamped(rounded(x)) * inverse; }

  Slope slope(float x) const {
    const float code = rounded(x), kept = clamped(code);
    const bool within = code == kept;
    return {within ? 1.0f : 0.0f, (within ? x : 0.0f) - kept * inverse};
  }
};

}  // namespace
