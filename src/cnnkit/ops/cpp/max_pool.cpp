// Max pooling of channels-last maps, or of their positive part, and its gradient. Values are compared as integers of the
// same bits, so that float32 and bfloat16 share one template; NaN is larger than all other values.
#include <algorithm>
#include <cstdint>
#include <cstring>

struct Maps {
    int64_t images, channels, height, width, out_height, out_width;
    int64_t window_height, window_width, stride_height, stride_width, top, left;  // top, left: padding
    int64_t threads;
};

template <class Bits, int WIDTH>
struct Pool {
    static constexpr int SIGN = 8 * sizeof(Bits) - 1;
    static constexpr Bits MOST = Bits(~(Bits(1) << SIGN)), LEAST = Bits(1) << SIGN;
    static constexpr Bits INFINITE = Bits(0x7f800000 >> (31 - SIGN));
    typedef Bits Lanes __attribute__((vector_size(WIDTH * sizeof(Bits))));
    typedef float Floats __attribute__((vector_size(WIDTH * sizeof(float))));
    typedef int32_t Words __attribute__((vector_size(WIDTH * sizeof(float))));

    static Lanes all(Bits a) { return a - Lanes{}; }
    static Lanes load(const Bits* from) {
        Lanes a;
        memcpy(&a, from, sizeof a);
        return a;
    }
    static void store(Bits* to, Lanes a) { memcpy(to, &a, sizeof a); }

    // flips the bits of negative values, so that integers have the order of the values; its own inverse except for NaN
    static Lanes ordered(Lanes bits) { return bits ^ ((bits >> SIGN) & MOST); }
    static Lanes key(Lanes bits) { return (bits & MOST) > INFINITE ? all(MOST) : ordered(bits); }

    static Floats number(Lanes bits) {
        if constexpr (sizeof(Bits) == 4) return (Floats)bits;
        else return (Floats)(__builtin_convertvector(bits, Words) << 16);
    }
    static Lanes rounded(Floats a) {
        if constexpr (sizeof(Bits) == 4) return (Lanes)a;
        else {
            const Words bits = (Words)a;
            const Words even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            return __builtin_convertvector(a == a ? even : Words{} + 0x7fc0, Lanes);
        }
    }

    // `found` is the index of the largest entry in the window; -1 if only positive ones count and there is none
    static void forward(const Maps& m, bool positive, const Bits* x, Bits* y, Bits* found) {
#pragma omp parallel for num_threads(m.threads) schedule(static)
        for (int64_t row = 0; row < m.images * m.out_height; row++) {
            const int64_t top = row % m.out_height * m.stride_height - m.top;
            const int64_t first = std::max<int64_t>(-top, 0), last = std::min(m.window_height, m.height - top);
            const Bits* image = x + row / m.out_height * m.height * m.width * m.channels;
            for (int64_t column = 0; column < m.out_width; column++) {
                const int64_t left = column * m.stride_width - m.left, to = (row * m.out_width + column) * m.channels;
                const int64_t begin = std::max<int64_t>(-left, 0), end = std::min(m.window_width, m.width - left);
                for (int64_t c = 0; c < m.channels; c += WIDTH) {
                    Lanes most = all(positive ? 0 : LEAST), which = all(-1);
                    for (int64_t i = first; i < last; i++)
                        for (int64_t j = begin; j < end; j++) {
                            const Lanes here = key(load(image + ((top + i) * m.width + left + j) * m.channels + c));
                            which = here > most ? all(Bits(i * m.window_width + j)) : which;
                            most = here > most ? here : most;
                        }
                    store(y + to + c, ordered(most));
                    store(found + to + c, which);
                }
            }
        }
    }

    static void backward(const Maps& m, const Bits* dy, const Bits* found, Bits* dx) {
#pragma omp parallel for num_threads(m.threads) schedule(static)
        for (int64_t row = 0; row < m.images * m.height; row++) {
            const int64_t y = row % m.height + m.top, image = row / m.height * m.out_height;
            const int64_t first = y < m.window_height ? 0 : (y - m.window_height) / m.stride_height + 1;
            const int64_t last = std::min(m.out_height, y / m.stride_height + 1);
            for (int64_t column = 0; column < m.width; column++) {
                const int64_t x = column + m.left;
                const int64_t begin = x < m.window_width ? 0 : (x - m.window_width) / m.stride_width + 1;
                const int64_t end = std::min(m.out_width, x / m.stride_width + 1);
                for (int64_t c = 0; c < m.channels; c += WIDTH) {
                    Floats sum = {};
                    for (int64_t i = first; i < last; i++)
                        for (int64_t j = begin; j < end; j++) {
                            const int64_t at = ((image + i) * m.out_width + j) * m.channels + c;
                            const Bits own = Bits((y - i * m.stride_height) * m.window_width + x - j * m.stride_width);
                            sum += number(load(found + at) == own ? load(dy + at) : Lanes{});
                        }
                    store(dx + (row * m.width + column) * m.channels + c, rounded(sum));
                }
            }
        }
    }
};

template <class Bits, class Do>
static void by_width(const Maps& m, Do work) {  // the widest registers that the channels fill
    if (m.channels % 16 == 0) work(Pool<Bits, 16>{});
    else work(Pool<Bits, 8>{});
}

template <class Bits>
static void forward(const Maps& m, bool positive, const void* x, void* y, void* found) {
    by_width<Bits>(m, [&](auto pool) { pool.forward(m, positive, (const Bits*)x, (Bits*)y, (Bits*)found); });
}
template <class Bits>
static void backward(const Maps& m, const void* dy, const void* found, void* dx) {
    by_width<Bits>(m, [&](auto pool) { pool.backward(m, (const Bits*)dy, (const Bits*)found, (Bits*)dx); });
}

extern "C" {
void pool_forward_16(const Maps* m, int positive, const void* x, void* y, void* found) { forward<int16_t>(*m, positive, x, y, found); }
void pool_forward_32(const Maps* m, int positive, const void* x, void* y, void* found) { forward<int32_t>(*m, positive, x, y, found); }
void pool_backward_16(const Maps* m, const void* dy, const void* found, void* dx) { backward<int16_t>(*m, dy, found, dx); }
void pool_backward_32(const Maps* m, const void* dy, const void* found, void* dx) { backward<int32_t>(*m, dy, found, dx); }
}
