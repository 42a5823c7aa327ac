// Vectors of floats with one lane per image, and the operations across lanes.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 32;  // NEON; SSE has 16
#endif

typedef float v __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

INLINE v broadcast(float a) { return a - v{}; }

INLINE v load(const float* from) {  // unaligned
    v a;
    memcpy(&a, from, sizeof a);
    return a;
}
INLINE v load(const uint8_t* from) {
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    typedef uint16_t words __attribute__((vector_size(2 * LANES)));
    bytes a;
    memcpy(&a, from, sizeof a);
    // in steps: GCC converts lane by lane if the width grows by four at once
    return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(a, words), vi), v);
}
INLINE void store(float* to, v a) { memcpy(to, &a, sizeof a); }

INLINE v maximum(v a, v b) { return (a > b) | (a != a) ? a : b; }  // NaN propagates, as in torch

// e^x within 2 ULP; x is clamped to -87..88, NaN propagates
INLINE v exponential(v x) {
    x = x < -87.0f ? broadcast(-87.0f) : x;
    x = x > 88.0f ? broadcast(88.0f) : x;
    const v rounder = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    v shifted = x * 1.44269504f + rounder;
    v whole = shifted - rounder;
    v rest = x - whole * 0.693359375f;
    rest = rest + whole * 2.12194440e-4f;  // ln 2 in two parts
    v p = broadcast(1.0f / 5040);          // Taylor: |rest| <= ln 2 / 2
    p = p * rest + 1.0f / 720;
    p = p * rest + 1.0f / 120;
    p = p * rest + 1.0f / 24;
    p = p * rest + 1.0f / 6;
    p = p * rest + 0.5f;
    p = p * rest + 1.0f;
    p = p * rest + 1.0f;
    vi power = ((vi)shifted - (vi)rounder + 127) << 23;
    return p * (v)power;
}

INLINE v sigmoid(v x) { return 1.0f / (1.0f + exponential(-x)); }

// lanes START, START + 1, ... of a and b in turn
template <int START, size_t... I>
INLINE v interleave(v a, v b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (int(I / 2) + START + (I % 2 ? LANES : 0))...);
}
using Lanes = std::make_index_sequence<LANES>;

// swap lane j of register i with lane i of register j
INLINE void transpose(v (&r)[LANES]) {
    v t[LANES];
    UNROLL for (int width = 1; width < LANES; width *= 2) {
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = interleave<0>(r[i], r[i + LANES / 2], Lanes{});
            t[2 * i + 1] = interleave<LANES / 2>(r[i], r[i + LANES / 2], Lanes{});
        }
        UNROLL for (int i = 0; i < LANES; i++) r[i] = t[i];
    }
}

// lane i of the result is the sum over the lanes of register i
INLINE v lane_sums(v (&r)[LANES]) {
    UNROLL for (int half = LANES / 2; half; half /= 2)
        UNROLL for (int i = 0; i < half; i++)
            r[i] = interleave<0>(r[i], r[i + half], Lanes{}) + interleave<LANES / 2>(r[i], r[i + half], Lanes{});
    return r[0];
}

INLINE float sum(v a) {
    float total = 0;
    UNROLL for (int i = 0; i < LANES; i++) total += a[i];
    return total;
}

// to[i] += the sum over the lanes of a[i]
template <int N>
INLINE void add_lane_sums(const v* a, float* to) {
    UNROLL for (int first = 0; first < N; first += LANES) {
        v r[LANES];
        UNROLL for (int i = 0; i < LANES; i++) r[i] = first + i < N ? a[first + i] : v{};
        v s = lane_sums(r);
        UNROLL for (int i = 0; i < LANES; i++)
            if (first + i < N) to[first + i] += s[i];
    }
}

// the size of the fewest tiles of at most `max` that cover `size`, made as equal as possible
constexpr int even_tile(int size, int max) {
    int tiles = (size + max - 1) / max;
    return (size + tiles - 1) / tiles;
}

template <int C_, int H_, int W_>
struct Shape {
    static constexpr int C = C_, H = H_, W = W_, area = H * W, size = C * H * W;
};
