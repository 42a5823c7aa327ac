// A register of floats, one lane per image, and the few things that lanes do with one another.
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
constexpr int LANES = 4, REGISTERS = 32;  // NEON has so many; SSE has half
#endif

typedef float v __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

INLINE v all(float a) { return a - v{}; }

INLINE v load(const float* from) {  // from any address
    v a;
    memcpy(&a, from, sizeof a);
    return a;
}
INLINE v load(const uint8_t* from) {
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    typedef uint16_t words __attribute__((vector_size(2 * LANES)));
    bytes a;
    memcpy(&a, from, sizeof a);
    // step by step: GCC takes a register apart that is to become four times as wide at once
    return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(a, words), vi), v);
}
INLINE void store(float* to, v a) { memcpy(to, &a, sizeof a); }

INLINE v larger(v a, v b) { return (a > b) | (a != a) ? a : b; }  // no number wins, as in torch

// e^x to 2 units in the last place; 0 below -87, what no number is stays none
INLINE v exponential(v x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    const v rounder = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    v shifted = x * 1.44269504f + rounder;
    v whole = shifted - rounder;
    v rest = x - whole * 0.693359375f;
    rest = rest + whole * 2.12194440e-4f;  // ln 2 in two parts
    v p = all(1.0f / 5040);                // Taylor: |rest| <= ln 2 / 2
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

INLINE v logistic(v x) { return 1.0f / (1.0f + exponential(-x)); }

template <size_t... I>
INLINE v zip_low(v a, v b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (int(I / 2) + (I % 2 ? LANES : 0))...);
}
template <size_t... I>
INLINE v zip_high(v a, v b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (int(I / 2) + LANES / 2 + (I % 2 ? LANES : 0))...);
}
using Lanes = std::make_index_sequence<LANES>;

// LANES registers: lane j of register i changes places with lane i of register j
INLINE void transpose(v (&r)[LANES]) {
    v t[LANES];
    UNROLL for (int width = 1; width < LANES; width *= 2) {
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = zip_low(r[i], r[i + LANES / 2], Lanes{});
            t[2 * i + 1] = zip_high(r[i], r[i + LANES / 2], Lanes{});
        }
        UNROLL for (int i = 0; i < LANES; i++) r[i] = t[i];
    }
}

// lane i of what is returned is the sum over the lanes of register i
INLINE v sums(v (&r)[LANES]) {
    UNROLL for (int half = LANES / 2; half; half /= 2)
        UNROLL for (int i = 0; i < half; i++)
            r[i] = zip_low(r[i], r[i + half], Lanes{}) + zip_high(r[i], r[i + half], Lanes{});
    return r[0];
}

INLINE float sum(v a) {
    float total = 0;
    UNROLL for (int i = 0; i < LANES; i++) total += a[i];
    return total;
}

// to[i] += the sum over the lanes of a[i]
template <int N>
INLINE void add_sums(const v* a, float* to) {
    UNROLL for (int first = 0; first < N; first += LANES) {
        v r[LANES];
        UNROLL for (int i = 0; i < LANES; i++) r[i] = first + i < N ? a[first + i] : v{};
        v s = sums(r);
        UNROLL for (int i = 0; i < LANES; i++)
            if (first + i < N) to[first + i] += s[i];
    }
}

// the largest tile of at most `most` that cuts `size` into tiles as equal as can be
constexpr int even(int size, int most) {
    int tiles = (size + most - 1) / most;
    return (size + tiles - 1) / tiles;
}

template <int C_, int H_, int W_>
struct Shape {
    static constexpr int C = C_, H = H_, W = W_, area = H * W, size = C * H * W;
};
