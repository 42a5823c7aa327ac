// Threads that train, measure or predict: each takes groups of as many images as there are lanes, and sums its own gradients.
#pragma once
#include <atomic>
#include <memory>
#include <thread>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif
#include "optimizer.hpp"
#include "vector.hpp"

struct Job {
    const uint8_t* bytes;  // images x channels x height x width, of all steps, or
    const float* floats;
    const int64_t* labels;
    const float *scale, *shift;  // of a channel's bytes
    const int64_t* sizes;        // of the batches
    const float* rates;
    const uint32_t* seeds;
    const Weight* weights;
    float* const* buffers;  // running statistics, or where those of a batch go
    const Rule* rule;
    double* losses;  // the batches' means
    int64_t* correct;
    float* gradients;  // the last step's, if asked for
    float* logits;
    int64_t steps, images;
    float smoothing;
};

class Barrier {
    std::atomic<int> waiting{0}, round{0};
    const int threads;

public:
    explicit Barrier(int threads) : threads(threads) {}
    void wait() {
        const int now = round.load(std::memory_order_relaxed);
        if (waiting.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            waiting.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round.load(std::memory_order_acquire) == now; spins++)
            if (spins > 20000) std::this_thread::yield();
    }
};

// Numbers so small that processors slow down are zero while this lives.
struct FlushToZero {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#endif
};

template <class Pixel>
void read_lanes(const Pixel* images, int count, int size, v* x) {
    const Pixel* from[LANES];
    for (int l = 0; l < LANES; l++) from[l] = images + int64_t(l < count ? l : 0) * size;
    int k = 0;
    for (; k + LANES <= size; k += LANES) {
        v r[LANES];
        for (int l = 0; l < LANES; l++) r[l] = load(from[l] + k);
        transpose(r);
        UNROLL for (int l = 0; l < LANES; l++) x[k + l] = r[l];
    }
    for (; k < size; k++)
        for (int l = 0; l < LANES; l++) x[k][l] = from[l][k];
}

// Net: what is generated for a network, see source.py.
template <class Net>
class Team {
    using Work = typename Net::Work;
    using Own = typename Net::Own;
    struct alignas(64) Sums {
        double loss;
        int64_t correct;
    };
    template <class T>
    static T* aligned(size_t count) {
        void* found = std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64);
        if (!found) throw std::bad_alloc();
        memset(found, 0, count * sizeof(T));
        return static_cast<T*>(found);
    }
    struct Free {
        void operator()(void* what) const { std::free(what); }
    };

    const int threads;
    int places = 0;  // for groups, kept until the whole batch is through where batch normalisation waits for all
    std::unique_ptr<Work[], Free> works;
    std::unique_ptr<Own[], Free> owns;
    std::unique_ptr<float[], Free> gradients;
    std::vector<Sums> sums;
    static constexpr int64_t stride = Net::gradients;

    static int64_t aligned_size(int64_t size) { return (size + 15) / 16 * 16; }
    static int groups_of(int64_t images) { return (images + LANES - 1) / LANES; }

    void make_room(int groups) {
        const int wanted = Net::phases > 1 ? groups : threads;
        if (wanted <= places) return;
        works.reset(aligned<Work>(wanted));
        places = wanted;
    }

    void read(const Job& job, int64_t first, int count, Work& work) const {
        using In = typename Net::In;
        if (job.floats) read_lanes(job.floats + first * In::size, count, In::size, work.x);
        else {
            read_lanes(job.bytes + first * In::size, count, In::size, work.x);
            for (int c = 0; c < In::C; c++)
                for (int i = 0; i < In::area; i++) {
                    v& pixel = work.x[c * In::area + i];
                    pixel = pixel * job.scale[c] + job.shift[c];
                }
        }
        for (int l = 0; l < LANES; l++) work.mask[l] = l < count;
        work.images = count;
    }

    // each thread has a range of all numbers: it adds up the threads' gradients there, and updates
    void finish(const Job& job, int64_t step, int thread) {
        const int64_t from = stride / 16 * thread / threads * 16, to = stride / 16 * (thread + 1) / threads * 16;
        float* total = gradients.get();
        for (int t = 1; t < threads; t++) {
            float* more = total + t * stride;
            for (int64_t i = from; i < to; i++) total[i] += more[i];
            memset(more + from, 0, (to - from) * sizeof(float));
        }
        int64_t start = 0;
        for (int w = 0; w < Net::weights; start += aligned_size(job.weights[w++].size)) {
            const Weight& weight = job.weights[w];
            const int64_t a = from > start ? from - start : 0;
            const int64_t b = (to < start + weight.size ? to : start + weight.size) - start;
            if (a < b) update(*job.rule, weight, total + start, job.rates[step], job.rule->taken + step + 1, a, b);
        }
        if (job.gradients && step == job.steps - 1) memcpy(job.gradients + from, total + from, (to - from) * sizeof(float));
        memset(total + from, 0, (to - from) * sizeof(float));
    }

    void train(const Job& job, Barrier& barrier, int thread) {
        FlushToZero flush;
        Own& own = owns[thread];
        own.gradients = gradients.get() + thread * stride;
        int64_t first = 0;
        for (int64_t step = 0; step < job.steps; first += job.sizes[step++]) {
            const int64_t size = job.sizes[step];
            const int groups = groups_of(size);
            own.loss = 0;
            own.correct = 0;
            for (int phase = 0; phase < Net::phases; phase++) {
                if (phase) {
                    barrier.wait();
                    Net::begin(phase, job, own, works.get(), groups, thread == 0);
                }
                for (int g = thread; g < groups; g += threads) {
                    Work& work = works[Net::phases > 1 ? g : thread];
                    const int count = size - g * LANES < LANES ? size - g * LANES : LANES;
                    if (!phase) read(job, first + g * LANES, count, work);
                    work.first = g * LANES;
                    Net::run(phase, job, job.labels + first + g * LANES, job.seeds[step], 1.0f / size, work, own);
                }
            }
            sums[thread] = {own.loss, own.correct};
            barrier.wait();
            if (thread == 0) {
                job.losses[step] = 0;
                job.correct[step] = 0;
                for (const Sums& each : sums) {
                    job.losses[step] += each.loss / size;
                    job.correct[step] += each.correct;
                }
            }
            finish(job, step, thread);
            barrier.wait();
        }
    }

    void measure(const Job& job, Barrier& barrier, int thread) {
        FlushToZero flush;
        const int groups = groups_of(job.images);
        for (int phase = 0; phase < Net::norms; phase++) {
            for (int g = thread; g < groups; g += threads) {
                const int64_t left = job.images - int64_t(g) * LANES;
                if (!phase) read(job, int64_t(g) * LANES, left < LANES ? left : LANES, works[g]);
                Net::measure(phase, job, works[g], owns[thread]);
            }
            barrier.wait();
            Net::begin_measuring(phase + 1, job, owns[thread], works.get(), groups, thread == 0);
        }
    }

    void predict(const Job& job, int thread) {
        FlushToZero flush;
        constexpr int classes = Net::Out::size;
        Net::begin_predicting(job, owns[thread]);
        for (int64_t g = thread; g < groups_of(job.images); g += threads) {
            Work& work = works[thread];
            const int64_t left = job.images - g * LANES;
            read(job, g * LANES, left < LANES ? left : LANES, work);
            const v* y = Net::predict(job, work, owns[thread]);
            for (int l = 0; l < work.images; l++)
                for (int i = 0; i < classes; i++) job.logits[(g * LANES + l) * classes + i] = y[i][l];
        }
    }

    template <class Do>
    void together(Do work) {
        std::vector<std::thread> others;
        for (int t = 1; t < threads; t++) others.emplace_back(work, t);
        work(0);
        for (auto& other : others) other.join();
    }

public:
    explicit Team(int threads)
        : threads(threads), owns(aligned<Own>(threads)), gradients(aligned<float>(threads * stride)), sums(threads) {}

    void train(const Job& job) {
        int most = 0;
        for (int64_t s = 0; s < job.steps; s++) most = std::max(most, groups_of(job.sizes[s]));
        make_room(most);
        Barrier barrier(threads);
        together([&](int thread) { train(job, barrier, thread); });
    }
    void measure(const Job& job) {
        make_room(groups_of(job.images));
        Barrier barrier(threads);
        together([&](int thread) { measure(job, barrier, thread); });
    }
    void predict(const Job& job) {
        make_room(threads);
        together([&](int thread) { predict(job, thread); });
    }
};
