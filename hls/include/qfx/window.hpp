// SPDX-License-Identifier: Apache-2.0
/// \file
/// Drivers for kernels that read a neighbourhood: convolution, pooling, deformable convolution.
///
/// As in drive.hpp there is one overload for streams and one for arrays. The kernel sees a *source*: `inside(row, col)`
/// and `code(row, col, channel)`; rows and columns count from the image's corner, so padding is what lies outside.
///
/// \tparam KERNEL config: in_height, in_width, channels_in, out_height, out_width, channels_out, stride_row,
///   pad_top (rows above the image), span (rows from the first to the last that one output reads), ring_rows (power of
///   two above span), ring_banks (columns read at once), reuse_factor (cycles an output pixel).
#ifndef QFX_WINDOW_HPP_
#define QFX_WINDOW_HPP_

#include "hls_stream.h"
#include "code.hpp"

namespace qfx {

/// The whole image in an array.
template <class CONFIG_T, class in_T> struct Image {
    typedef typename Code<in_T>::type code_T;
    const in_T *words;

    static bool inside(int row, int col) {
        return row >= 0 && row < CONFIG_T::in_height && col >= 0 && col < CONFIG_T::in_width;
    }
    code_T code(int row, int col, int channel) const {
        return code_of(words[(row * CONFIG_T::in_width + col) * CONFIG_T::channels_in + channel]);
    }
};

/// The last rows of the image: row r stands in slot r modulo ring_rows.
template <class CONFIG_T, class in_T> struct Ring {
    typedef typename Code<typename in_T::value_type>::type code_T;
    const in_T (&rows)[CONFIG_T::ring_rows][CONFIG_T::in_width];

    static int slot(int row) { return row & (CONFIG_T::ring_rows - 1); }
    static bool inside(int row, int col) { return Image<CONFIG_T, typename in_T::value_type>::inside(row, col); }
    code_T code(int row, int col, int channel) const { return code_of(rows[slot(row)][col][channel]); }
};

/// The steps of the row loop: in step s row s is stored, and one output row that reads only rows below s is computed.
template <class CONFIG_T> struct Steps {
    static_assert((CONFIG_T::ring_rows & (CONFIG_T::ring_rows - 1)) == 0, "ring_rows must be a power of two");
    static_assert(CONFIG_T::ring_rows > CONFIG_T::span,
                  "ring_rows must exceed span: the row being stored must not replace one still read");
    static constexpr int first_due = CONFIG_T::span - CONFIG_T::pad_top; // the step that computes output row 0
    static constexpr int after_due = first_due + (CONFIG_T::out_height - 1) * CONFIG_T::stride_row + 1;
    static constexpr int begin = first_due < 0 ? first_due : 0;
    static constexpr int end = after_due > CONFIG_T::in_height ? after_due : CONFIG_T::in_height;
    static constexpr int columns = CONFIG_T::in_width > CONFIG_T::out_width ? CONFIG_T::in_width : CONFIG_T::out_width;
};

/// y(row, col) = kernel(source, row, col, side(row, col)...).
/// \tparam side_T operands of one channel that the kernel reads at the output pixel itself (offsets); none, or more.
template <class KERNEL, class in_T, class res_T, class... side_T>
void window(hls::stream<in_T> &in, hls::stream<res_T> &out, hls::stream<side_T> &...side) {
    typedef typename KERNEL::config config;
    typedef Steps<config> steps;
    in_T rows[config::ring_rows][config::in_width];
    // one memory a row slot and, for the columns read at once, one a bank: every tap has its own read port
    #pragma HLS ARRAY_PARTITION variable=rows complete dim=1
    #pragma HLS ARRAY_PARTITION variable=rows cyclic factor=config::ring_banks dim=2
    const Ring<config, in_T> source = {rows};
    int out_row = 0;
Row:
    for (int step = steps::begin; step < steps::end; ++step) { // invariant: out_row output rows are written
        const bool due = step == steps::first_due + out_row * config::stride_row && out_row < config::out_height;
    Column:
        for (int col = 0; col < steps::columns; ++col) {
            #pragma HLS PIPELINE II=config::reuse_factor
            // the row being stored is never one that this step reads
            #pragma HLS DEPENDENCE variable=rows inter false
            if (source.inside(step, col)) {
                rows[source.slot(step)][col] = in.read();
            }
            if (due && col < config::out_width) {
                res_T y;
                KERNEL::pixel(source, out_row, col, y, side.read()...);
                out.write(y);
            }
        }
        out_row += due;
    }
}

template <class KERNEL, class in_T, class res_T, class... side_T>
void window(const in_T *in, res_T *out, const side_T *...side) {
    #pragma HLS INLINE
    typedef typename KERNEL::config config;
    const Image<config, in_T> source = {in};
Row:
    for (int row = 0; row < config::out_height; ++row) {
        #pragma HLS UNROLL
    Column:
        for (int col = 0; col < config::out_width; ++col) {
            #pragma HLS UNROLL
            const int p = row * config::out_width + col;
            res_T *y = out + p * config::channels_out;
            KERNEL::pixel(source, row, col, y, (side + p)...);
        }
    }
}

} // namespace qfx

#endif
