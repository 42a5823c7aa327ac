// Batch normalisation: statistics are computed for each group of images, and each thread merges those of all groups.
#pragma once
#include <cmath>
#include "vector.hpp"

template <class In>
struct Norm {
    static constexpr int C = In::C, area = In::area;

    struct Partial {  // of a group
        float count, mean[C], squares[C], db[C], dw[C];  // squares: sum of squared deviations from `mean`
    };
    struct Batch {
        float count, mean[C], inverse_std[C], variance[C], db[C], dw[C];
    };

    static void measure(const v* x, Partial& partial, v mask, int images) {
        partial.count = float(images) * area;
        for (int c = 0; c < C; c++, x += area) {
            v total = {}, squares = {};
            for (int i = 0; i < area; i++) total += x[i];
            partial.mean[c] = sum(total * mask) / partial.count;
            for (int i = 0; i < area; i++) {
                v delta = x[i] - partial.mean[c];
                squares += delta * delta;
            }
            partial.squares[c] = sum(squares * mask);
        }
    }

    // in the order of the groups, so that every thread gets the same result (Chan et al. 1979)
    template <class Partials>
    static void merge(Partials partial, int groups, float eps, Batch& batch) {
        batch.count = partial(0).count;
        memcpy(batch.mean, partial(0).mean, sizeof batch.mean);
        memcpy(batch.variance, partial(0).squares, sizeof batch.variance);
        for (int g = 1; g < groups; g++) {
            const Partial& next = partial(g);
            const float count = batch.count + next.count, fraction = next.count / count;
            for (int c = 0; c < C; c++) {
                const float delta = next.mean[c] - batch.mean[c];
                batch.mean[c] += delta * fraction;
                batch.variance[c] += next.squares[c] + delta * delta * batch.count * fraction;
            }
            batch.count = count;
        }
        for (int c = 0; c < C; c++) {
            batch.variance[c] /= batch.count;
            batch.inverse_std[c] = 1 / std::sqrt(batch.variance[c] + eps);
        }
    }

    static void use_running(const float* mean, const float* variance, float eps, Batch& batch) {
        for (int c = 0; c < C; c++) {
            batch.mean[c] = mean[c];
            batch.inverse_std[c] = 1 / std::sqrt(variance[c] + eps);
        }
    }

    static void update_running(const Batch& batch, float momentum, float* mean, float* variance) {
        const float unbiased = batch.count / (batch.count - 1);
        for (int c = 0; c < C; c++) {
            mean[c] += momentum * (batch.mean[c] - mean[c]);
            variance[c] += momentum * (batch.variance[c] * unbiased - variance[c]);
        }
    }

    static void copy_statistics(const Batch& batch, float* mean, float* variance) {
        memcpy(mean, batch.mean, sizeof batch.mean);
        memcpy(variance, batch.variance, sizeof batch.variance);
    }

    static void forward(const v* x, v* y, const Batch& batch, const float* w, const float* b) {
        for (int c = 0; c < C; c++, x += area, y += area) {
            const float scale = batch.inverse_std[c] * w[c];
            for (int i = 0; i < area; i++) y[i] = (x[i] - batch.mean[c]) * scale + b[c];
        }
    }

    // dy is zero in lanes without an image
    static void weight_gradient(const v* x, const v* dy, const Batch& batch, Partial& partial, float* gw, float* gb) {
        for (int c = 0; c < C; c++, x += area, dy += area) {
            v db = {}, dw = {};
            for (int i = 0; i < area; i++) {
                db += dy[i];
                dw += dy[i] * (x[i] - batch.mean[c]);
            }
            partial.db[c] = sum(db);
            partial.dw[c] = sum(dw) * batch.inverse_std[c];
            gb[c] += partial.db[c];
            gw[c] += partial.dw[c];
        }
    }

    template <class Partials>
    static void merge_gradients(Partials partial, int groups, Batch& batch) {
        for (int c = 0; c < C; c++) batch.db[c] = batch.dw[c] = 0;
        for (int g = 0; g < groups; g++)
            for (int c = 0; c < C; c++) {
                batch.db[c] += partial(g).db[c];
                batch.dw[c] += partial(g).dw[c];
            }
    }

    // in place (Ioffe and Szegedy 2015, section 3)
    static void input_gradient(const v* x, v* dy, v mask, const Batch& batch, const float* w) {
        for (int c = 0; c < C; c++, x += area, dy += area) {
            const float scale = batch.inverse_std[c] * w[c];
            const float slope = batch.dw[c] * batch.inverse_std[c] / batch.count, shift = batch.db[c] / batch.count;
            for (int i = 0; i < area; i++)
                dy[i] = (dy[i] - shift - (x[i] - batch.mean[c]) * slope) * scale * mask;
        }
    }
};
