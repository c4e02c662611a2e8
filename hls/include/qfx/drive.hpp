// SPDX-License-Identifier: Apache-2.0
/// \file
/// Drivers: they bring the operands of one pixel to a kernel and take its result away.
///
/// A kernel is a struct with `typedef CONFIG_T config` and a static function `pixel`. Each driver has two overloads: for
/// `hls::stream` (a word is the channels of one pixel, pixels row-major) and for plain arrays (the whole tensor in
/// height, width, channel order). A pixel's channels are reached by `x[c]` in both.
#ifndef QFX_DRIVE_HPP_
#define QFX_DRIVE_HPP_

#include "hls_stream.h"
#include "code.hpp"

namespace qfx {

/// y(p) = kernel(x(p)) for each pixel p.
/// \tparam KERNEL config: pixels, channels_in, channels_out, reuse_factor (cycles a pixel).
template <class KERNEL, class in_T, class res_T> void map(hls::stream<in_T> &in, hls::stream<res_T> &out) {
Pixel:
    for (int p = 0; p < KERNEL::config::pixels; ++p) { // invariant: p words were read and p written
        #pragma HLS PIPELINE II=KERNEL::config::reuse_factor
        const in_T x = in.read();
        res_T y;
        KERNEL::pixel(x, y);
        out.write(y);
    }
}

template <class KERNEL, class in_T, class res_T> void map(const in_T *in, res_T *out) {
    #pragma HLS INLINE
Pixel:
    for (int p = 0; p < KERNEL::config::pixels; ++p) {
        #pragma HLS UNROLL
        const in_T *x = in + p * KERNEL::config::channels_in;
        res_T *y = out + p * KERNEL::config::channels_out;
        KERNEL::pixel(x, y);
    }
}

/// y(p) = kernel(a(p), b(p)) for each pixel p.
/// \tparam KERNEL config: pixels, channels_a, channels_b, channels_out, reuse_factor.
template <class KERNEL, class a_T, class b_T, class res_T>
void join(hls::stream<a_T> &a_in, hls::stream<b_T> &b_in, hls::stream<res_T> &out) {
Pixel:
    for (int p = 0; p < KERNEL::config::pixels; ++p) { // invariant: p words of each were read and p written
        #pragma HLS PIPELINE II=KERNEL::config::reuse_factor
        const a_T a = a_in.read();
        const b_T b = b_in.read();
        res_T y;
        KERNEL::pixel(a, b, y);
        out.write(y);
    }
}

template <class KERNEL, class a_T, class b_T, class res_T> void join(const a_T *a_in, const b_T *b_in, res_T *out) {
    #pragma HLS INLINE
Pixel:
    for (int p = 0; p < KERNEL::config::pixels; ++p) {
        #pragma HLS UNROLL
        const a_T *a = a_in + p * KERNEL::config::channels_a;
        const b_T *b = b_in + p * KERNEL::config::channels_b;
        res_T *y = out + p * KERNEL::config::channels_out;
        KERNEL::pixel(a, b, y);
    }
}

} // namespace qfx

#endif
