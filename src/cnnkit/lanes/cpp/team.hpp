// Threads that train, measure or predict. A group is LANES images; thread t of n takes groups t, t + n, ..., and sums
// their gradients.
#pragma once
#include <atomic>
#include <memory>
#include <thread>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif
#include "job.hpp"
#include "optimizer.hpp"
#include "vector.hpp"

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

// Treats denormal numbers, which are slow, as zero during its lifetime.
struct FlushToZero {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#endif
};

template <class Pixel>
void load_images(const Pixel* images, int count, int size, v* x) {
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

// Net: see net.hpp.in
template <class Net>
class Team {
    using Workspace = typename Net::Workspace;
    using State = typename Net::State;
    struct alignas(64) Sums {
        double loss;
        int64_t correct;
    };
    template <class T>
    static T* aligned(size_t count) {
        void* memory = std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64);
        if (!memory) throw std::bad_alloc();
        memset(memory, 0, count * sizeof(T));
        return static_cast<T*>(memory);
    }
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };

    const int threads;
    int num_workspaces = 0;  // one per thread; with batch normalisation, which waits for all groups, one per group
    std::unique_ptr<Workspace[], Free> workspaces;
    std::unique_ptr<State[], Free> states;
    std::unique_ptr<float[], Free> gradients;
    std::vector<Sums> sums;
    static constexpr int64_t stride = Net::num_gradients;

    static int64_t aligned_size(int64_t size) { return (size + 15) / 16 * 16; }
    static int num_groups(int64_t images) { return (images + LANES - 1) / LANES; }

    void reserve(int groups) {
        const int wanted = Net::num_phases > 1 ? groups : threads;
        if (wanted <= num_workspaces) return;
        workspaces.reset(aligned<Workspace>(wanted));
        num_workspaces = wanted;
    }

    void read(const Job& job, int64_t first, int count, Workspace& work) const {
        using In = typename Net::In;
        if (job.floats) load_images(job.floats + first * In::size, count, In::size, work.x);
        else {
            load_images(job.bytes + first * In::size, count, In::size, work.x);
            for (int c = 0; c < In::C; c++)
                for (int i = 0; i < In::area; i++) {
                    v& pixel = work.x[c * In::area + i];
                    pixel = pixel * job.scale[c] + job.shift[c];
                }
        }
        for (int l = 0; l < LANES; l++) work.mask[l] = l < count;
        work.images = count;
    }

    // each thread reduces the threads' gradients, and updates the parameters, in its own range of elements
    void reduce_and_update(const Job& job, int64_t step, int thread) {
        const int64_t from = stride / 16 * thread / threads * 16, to = stride / 16 * (thread + 1) / threads * 16;
        const size_t bytes = (to - from) * sizeof(float);
        float* total = gradients.get();
        for (int t = 1; t < threads; t++) {
            float* other = total + t * stride;
            for (int64_t i = from; i < to; i++) total[i] += other[i];
            memset(other + from, 0, bytes);
        }
        int64_t start = 0;
        for (int p = 0; p < Net::num_parameters; start += aligned_size(job.parameters[p++].size)) {
            const Parameter& parameter = job.parameters[p];
            const int64_t a = from > start ? from - start : 0;
            const int64_t b = (to < start + parameter.size ? to : start + parameter.size) - start;
            const int64_t number = job.optimizer->steps_taken + step + 1;
            if (a < b) update(*job.optimizer, parameter, total + start, job.rates[step], number, a, b);
        }
        if (job.gradients && step == job.steps - 1) memcpy(job.gradients + from, total + from, bytes);
        memset(total + from, 0, bytes);
    }

    void train(const Job& job, Barrier& barrier, int thread) {
        FlushToZero flush;
        State& state = states[thread];
        state.gradients = gradients.get() + thread * stride;
        int64_t first = 0;
        for (int64_t step = 0; step < job.steps; first += job.sizes[step++]) {
            const int64_t size = job.sizes[step];
            const int groups = num_groups(size);
            state.loss = 0;
            state.correct = 0;
            for (int phase = 0; phase < Net::num_phases; phase++) {
                if (phase) {
                    barrier.wait();
                    Net::begin_phase(phase, job, state, workspaces.get(), groups, thread == 0);
                }
                for (int g = thread; g < groups; g += threads) {
                    Workspace& work = workspaces[Net::num_phases > 1 ? g : thread];
                    const int count = size - g * LANES < LANES ? size - g * LANES : LANES;
                    if (!phase) read(job, first + g * LANES, count, work);
                    work.first = g * LANES;
                    const int64_t* labels = job.labels + first + g * LANES;
                    Net::run_phase(phase, job, labels, job.seeds[step], 1.0f / size, work, state);
                }
            }
            sums[thread] = {state.loss, state.correct};
            barrier.wait();
            if (thread == 0) {
                job.losses[step] = 0;
                job.correct[step] = 0;
                for (const Sums& each : sums) {
                    job.losses[step] += each.loss / size;
                    job.correct[step] += each.correct;
                }
            }
            reduce_and_update(job, step, thread);
            barrier.wait();
        }
    }

    void measure(const Job& job, Barrier& barrier, int thread) {
        FlushToZero flush;
        const int groups = num_groups(job.images);
        for (int phase = 0; phase < Net::num_norms; phase++) {
            for (int g = thread; g < groups; g += threads) {
                const int64_t left = job.images - int64_t(g) * LANES;
                if (!phase) read(job, int64_t(g) * LANES, left < LANES ? left : LANES, workspaces[g]);
                Net::measure(phase, job, workspaces[g], states[thread]);
            }
            barrier.wait();
            Net::begin_measure(phase + 1, job, states[thread], workspaces.get(), groups, thread == 0);
        }
    }

    void predict(const Job& job, int thread) {
        FlushToZero flush;
        constexpr int classes = Net::Out::size;
        Net::begin_predict(job, states[thread]);
        for (int64_t g = thread; g < num_groups(job.images); g += threads) {
            Workspace& work = workspaces[thread];
            const int64_t left = job.images - g * LANES;
            read(job, g * LANES, left < LANES ? left : LANES, work);
            const v* y = Net::predict(job, work, states[thread]);
            for (int l = 0; l < work.images; l++)
                for (int i = 0; i < classes; i++) job.logits[(g * LANES + l) * classes + i] = y[i][l];
        }
    }

    template <class Work>
    void parallel(Work work) {
        std::vector<std::thread> others;
        for (int t = 1; t < threads; t++) others.emplace_back(work, t);
        work(0);
        for (auto& other : others) other.join();
    }

public:
    explicit Team(int threads)
        : threads(threads),
          states(aligned<State>(threads)),
          gradients(aligned<float>(threads * stride)),
          sums(threads) {}

    void train(const Job& job) {
        int max_groups = 0;
        for (int64_t s = 0; s < job.steps; s++) max_groups = std::max(max_groups, num_groups(job.sizes[s]));
        reserve(max_groups);
        Barrier barrier(threads);
        parallel([&](int thread) { train(job, barrier, thread); });
    }
    void measure(const Job& job) {
        reserve(num_groups(job.images));
        Barrier barrier(threads);
        parallel([&](int thread) { measure(job, barrier, thread); });
    }
    void predict(const Job& job) {
        reserve(threads);
        parallel([&](int thread) { predict(job, thread); });
    }
};
