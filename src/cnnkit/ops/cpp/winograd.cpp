// The transforms of Winograd's minimal filtering of channels-last maps in float32. An output tile has 4 x 4 or 3 x 3 pixels
// for 3 x 3 kernels, and 2 x 2 for 5 x 5 kernels; it is computed from 6 x 6 input pixels, or from 5 x 5 for 3 x 3. The
// interpolation points are 0, 1, -1, 2, infinity and, with 6 x 6 pixels, -2. Transformed tiles are stored as 36 or 25
// matrices, tiles x channels, with an odd number of tiles.
#include <algorithm>
#include <cstdint>
#include <cstring>

struct Tiles {
    int64_t height, width, channels;  // of the maps to read or write
    int64_t rows, columns;            // of tiles in a map
    int64_t top, left;                // rows and columns of the first tile before the map's first pixel
    int64_t first, count;             // among the tiles of all maps
    int64_t side;                     // pixels, of an output tile
    int64_t threads;
};

template <int WIDTH, int SIDE>
struct Transforms {
    static constexpr int INPUTS = SIDE == 3 ? 5 : 6, TAIL = INPUTS - 1;
    typedef float Lanes __attribute__((vector_size(WIDTH * sizeof(float))));

    static Lanes load(const float* from) {
        Lanes a;
        memcpy(&a, from, sizeof a);
        return a;
    }
    static void store(float* to, Lanes a) { memcpy(to, &a, sizeof a); }

    struct Input {  // B^T d
        static constexpr int FROM = INPUTS, TO = INPUTS;
        static void apply(const Lanes* d, Lanes* v) {
            if constexpr (INPUTS == 6) {
                const Lanes even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], near = d[4] - d[2], far = 2 * (d[3] - d[1]);
                v[0] = 4 * d[0] - 5 * d[2] + d[4];
                v[1] = even + odd;
                v[2] = even - odd;
                v[3] = near + far;
                v[4] = near - far;
                v[5] = 4 * d[1] - 5 * d[3] + d[5];
            } else {
                const Lanes near = d[3] - d[1], far = d[3] - d[2];
                v[0] = 2 * (d[0] - d[2]) + near;
                v[1] = far - 2 * d[1];
                v[2] = far + 2 * (d[1] - d[2]);
                v[3] = near;
                v[4] = d[4] - d[2] - 2 * near;
            }
        }
    };
    struct Output {  // A^T m
        static constexpr int FROM = INPUTS, TO = SIDE;
        static void apply(const Lanes* m, Lanes* y) {
            const Lanes near = m[1] + m[2], across = m[1] - m[2];
            Lanes far = m[3], beyond = m[3];
            if constexpr (INPUTS == 6) {
                far += m[4];
                beyond -= m[4];
            }
            y[0] = m[0] + near + far;
            y[1] = across + 2 * beyond;
            if constexpr (SIDE > 2) y[2] = near + 4 * far;
            if constexpr (SIDE > 3) y[3] = across + 8 * beyond;
            y[SIDE - 1] += m[TAIL];
        }
    };
    struct Gradient {  // A y
        static constexpr int FROM = SIDE, TO = INPUTS;
        static void apply(const Lanes* y, Lanes* m) {
            Lanes even = y[0], odd = y[1], far = y[0], beyond = 2 * y[1];
            if constexpr (SIDE > 2) {
                even += y[2];
                far += 4 * y[2];
            }
            if constexpr (SIDE > 3) {
                odd += y[3];
                beyond += 8 * y[3];
            }
            m[0] = y[0];
            m[1] = even + odd;
            m[2] = even - odd;
            m[3] = far + beyond;
            if constexpr (INPUTS == 6) m[4] = far - beyond;
            m[TAIL] = y[SIDE - 1];
        }
    };

    template <class One>
    static void both_ways(const Lanes (&from)[One::FROM][One::FROM], Lanes (&to)[One::TO][One::TO]) {
        Lanes half[One::FROM][One::TO];  // columns
#pragma GCC unroll 6
        for (int j = 0; j < One::FROM; j++) {
            Lanes column[One::FROM];
#pragma GCC unroll 6
            for (int i = 0; i < One::FROM; i++) column[i] = from[i][j];
            One::apply(column, half[j]);
        }
#pragma GCC unroll 6
        for (int i = 0; i < One::TO; i++) {
            Lanes row[One::FROM];
#pragma GCC unroll 6
            for (int j = 0; j < One::FROM; j++) row[j] = half[j][i];
            One::apply(row, to[i]);
        }
    }

    template <class Do>
    static void each_tile(const Tiles& t, Do work) {
#pragma omp parallel for num_threads(t.threads) schedule(static)
        for (int64_t tile = 0; tile < t.count; tile++) {
            const int64_t number = t.first + tile, row = number / t.columns;
            const int64_t y = row % t.rows * SIDE - t.top, x = number % t.columns * SIDE - t.left;
            work(tile, row / t.rows * t.height * t.width, y, x);
        }
    }

    // pixels outside the map are zero
    template <class One>
    static void spread(const Tiles& t, const float* maps, float* to) {
        each_tile(t, [&](int64_t tile, int64_t image, int64_t y, int64_t x) {
            const bool inside = y >= 0 && x >= 0 && y + One::FROM <= t.height && x + One::FROM <= t.width;
            for (int64_t c = 0; c < t.channels; c += WIDTH) {
                Lanes pixels[One::FROM][One::FROM], found[One::TO][One::TO];
                for (int i = 0; i < One::FROM; i++)
                    for (int j = 0; j < One::FROM; j++) {
                        const bool there = inside || (y + i >= 0 && y + i < t.height && x + j >= 0 && x + j < t.width);
                        pixels[i][j] = there ? load(maps + (image + (y + i) * t.width + x + j) * t.channels + c) : Lanes{};
                    }
                both_ways<One>(pixels, found);
                for (int i = 0; i < One::TO; i++)
                    for (int j = 0; j < One::TO; j++)
                        store(to + ((i * One::TO + j) * (t.count | 1) + tile) * t.channels + c, found[i][j]);
            }
        });
    }

    static void gather(const Tiles& t, const float* from, const float* bias, float* maps) {
        each_tile(t, [&](int64_t tile, int64_t image, int64_t y, int64_t x) {
            const int rows = std::min<int64_t>(SIDE, t.height - y), columns = std::min<int64_t>(SIDE, t.width - x);
            for (int64_t c = 0; c < t.channels; c += WIDTH) {
                const Lanes more = bias ? load(bias + c) : Lanes{};
                Lanes products[INPUTS][INPUTS], found[SIDE][SIDE];
                for (int i = 0; i < INPUTS; i++)
                    for (int j = 0; j < INPUTS; j++)
                        products[i][j] = load(from + ((i * INPUTS + j) * (t.count | 1) + tile) * t.channels + c);
                both_ways<Output>(products, found);
                for (int i = 0; i < rows; i++)
                    for (int j = 0; j < columns; j++)
                        store(maps + (image + (y + i) * t.width + x + j) * t.channels + c, found[i][j] + more);
            }
        });
    }
};

template <int WIDTH, class Do>
static void by_side(const Tiles& t, Do work) {
    if (t.side == 4) work(Transforms<WIDTH, 4>{});
    else if (t.side == 3) work(Transforms<WIDTH, 3>{});
    else work(Transforms<WIDTH, 2>{});
}

template <class Do>
static void with_transforms(const Tiles& t, Do work) {  // the widest registers that the channels fill
#ifdef __AVX512F__
    if (t.channels % 16 == 0) return by_side<16>(t, work);
#endif
    by_side<8>(t, work);
}

extern "C" {
void winograd_input(const Tiles* t, const float* maps, float* to) {
    with_transforms(*t, [&](auto one) { one.template spread<typename decltype(one)::Input>(*t, maps, to); });
}
void winograd_gradient(const Tiles* t, const float* maps, float* to) {
    with_transforms(*t, [&](auto one) { one.template spread<typename decltype(one)::Gradient>(*t, maps, to); });
}
void winograd_output(const Tiles* t, const float* from, const float* bias, float* maps) {
    with_transforms(*t, [&](auto one) { one.gather(*t, from, bias, maps); });
}
}
