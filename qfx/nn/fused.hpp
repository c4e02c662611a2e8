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
template <typename Real>
struct FormatOf {
  Real scale, inverse, low, high;

  FormatOf(float frac, Real low, Real high) : low(low), high(high) {
    const Real integer = std::nearbyint(frac);
    scale = std::exp2(integer < -21 ? -21 : integer > 21 ? 21 : integer);  // NaN passes, here and below
    inverse = 1 / scale;
  }

  Real rounded(Real x) const {
    const Real v = x * scale, below = std::floor(v);
    return below + (v - below >= Real(0.5) ? Real(1) : Real(0));
  }

  Real clamped(Real code) const { return code < low ? low : code > high ? high : code; }

  Real cast(Real x) const { return clamped(rounded(x)) * inverse; }

  Slope slope(Real x) const {
    const Real code = rounded(x), kept = clamped(code);
    const bool within = code == kept;
    return {within ? 1.0f : 0.0f, (within ? x : Real(0)) - kept * inverse};
  }
};

using Format = FormatOf<float>;

}  // namespace
