// SPDX-License-Identifier: Apache-2.0
/// \file
/// C simulation only: codes into and out of streams and arrays, and the record of every node's codes.
#ifndef QFX_CSIM_HPP_
#define QFX_CSIM_HPP_

#ifndef __SYNTHESIS__

#include "hls_stream.h"
#include "code.hpp"
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace qfx {

/// The codes that node number `node` has put out in this frame.
inline std::vector<std::int64_t> &record(std::size_t node) {
    static std::vector<std::vector<std::int64_t>> records;
    if (node >= records.size()) {
        records.resize(node + 1);
    }
    return records[node];
}

/// Record the words that stand in a stream, and put them back.
template <class T> void trace(hls::stream<T> &stream, std::size_t node, std::size_t elements) {
    for (std::size_t word = 0; word < elements / T::size; ++word) {
        const T x = stream.read();
        for (std::size_t i = 0; i < T::size; ++i) {
            record(node).push_back(code_of(x[i]));
        }
        stream.write(x);
    }
}

/// Record an array.
template <class T> void trace(const T *array, std::size_t node, std::size_t elements) {
    for (std::size_t i = 0; i < elements; ++i) {
        record(node).push_back(code_of(array[i]));
    }
}

/// Write codes into a stream, one word after the other.
template <class T> void feed(const std::vector<std::int64_t> &codes, hls::stream<T> &stream) {
    typedef typename T::value_type value_T;
    for (std::size_t word = 0; word < codes.size() / T::size; ++word) {
        T x;
        for (std::size_t i = 0; i < T::size; ++i) {
            x[i] = word_of<value_T>(typename Code<value_T>::type(codes[word * T::size + i]));
        }
        stream.write(x);
    }
}

/// Write codes into an array.
template <class T> void feed(const std::vector<std::int64_t> &codes, T *array) {
    for (std::size_t i = 0; i < codes.size(); ++i) {
        array[i] = word_of<T>(typename Code<T>::type(codes[i]));
    }
}

/// Take the words of an output away, so that the next frame finds its streams empty.
/// \return whether the stream held exactly the words of one frame.
template <class T> bool drain(hls::stream<T> &stream, std::size_t elements) {
    std::size_t words = 0;
    for (; !stream.empty(); ++words) {
        stream.read();
    }
    return words == elements / T::size;
}

template <class T> bool drain(const T *, std::size_t) { return true; }

/// Read `count` codes from a file of 64-bit integers. \return false at the end of the file.
inline bool read_codes(std::FILE *file, std::vector<std::int64_t> &codes, std::size_t count) {
    codes.resize(count);
    return std::fread(codes.data(), sizeof(std::int64_t), count, file) == count;
}

/// Append the records of nodes 0 .. nodes-1 to a file of 64-bit integers and clear them. \return false on a full disk.
inline bool write_records(std::FILE *file, std::size_t nodes) {
    bool written = true;
    for (std::size_t node = 0; node < nodes; ++node) {
        std::vector<std::int64_t> &codes = record(node);
        written = std::fwrite(codes.data(), sizeof(std::int64_t), codes.size(), file) == codes.size() && written;
        codes.clear();
    }
    return written;
}

} // namespace qfx

#endif

#endif
