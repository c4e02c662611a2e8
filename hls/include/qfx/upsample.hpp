// SPDX-License-Identifier: Apache-2.0
/// \file
/// Upsampling to the nearest neighbour: each pixel several times.
#ifndef QFX_UPSAMPLE_HPP_
#define QFX_UPSAMPLE_HPP_

#include "hls_stream.h"

namespace qfx {

/// y(row, col) = x(row / repeat_rows, col / repeat_cols), quotients rounded down; a row is kept until it has been repeated.
/// \tparam CONFIG_T in_height, in_width, channels_in, repeat_rows, repeat_cols.
template <class CONFIG_T, class in_T, class res_T> void upsample(hls::stream<in_T> &in, hls::stream<res_T> &out) {
    res_T line[CONFIG_T::in_width];
Row:
    for (int row = 0; row < CONFIG_T::in_height; ++row) { // invariant: row rows were read, repeat_rows times as many written
    Line:
        for (int again = 0; again < CONFIG_T::repeat_rows; ++again) {
        Pixel:
            for (int col = 0; col < CONFIG_T::in_width; ++col) {
            Copy:
                for (int copy = 0; copy < CONFIG_T::repeat_cols; ++copy) {
                    #pragma HLS PIPELINE II=1
                    if (again == 0 && copy == 0) {
                        const in_T x = in.read();
                    Channel:
                        for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                            #pragma HLS UNROLL
                            line[col][c] = x[c];
                        }
                    }
                    out.write(line[col]);
                }
            }
        }
    }
}

template <class CONFIG_T, class in_T, class res_T> void upsample(const in_T *in, res_T *out) {
    #pragma HLS INLINE
    static constexpr int out_width = CONFIG_T::in_width * CONFIG_T::repeat_cols;
Row:
    for (int row = 0; row < CONFIG_T::in_height * CONFIG_T::repeat_rows; ++row) {
        #pragma HLS UNROLL
    Pixel:
        for (int col = 0; col < out_width; ++col) {
            #pragma HLS UNROLL
            const int x = row / CONFIG_T::repeat_rows * CONFIG_T::in_width + col / CONFIG_T::repeat_cols;
        Channel:
            for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                #pragma HLS UNROLL
                out[(row * out_width + col) * CONFIG_T::channels_in + c] = in[x * CONFIG_T::channels_in + c];
            }
        }
    }
}

} // namespace qfx

#endif
