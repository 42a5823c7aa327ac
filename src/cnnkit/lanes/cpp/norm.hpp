// Batch normalisation over all groups of a batch: each group measures its part, every thread puts the parts together.
#pragma once
#include <cmath>
#include "vector.hpp"

template <class In>
struct Norm {
    static constexpr int C = In::C, area = In::area;

    struct Part {  // of a group
        float count, mean[C], squares[C], db[C], dw[C];
    };
    struct Whole {  // of the batch
        float count, mean[C], inverse[C], variance[C], db[C], dw[C];
    };

    // squares: of the deviations from the group's own mean
    static void measure(const v* x, Part& part, v mask, int images) {
        part.count = float(images) * area;
        for (int c = 0; c < C; c++, x += area) {
            v total = {}, squares = {};
            for (int i = 0; i < area; i++) total += x[i];
            part.mean[c] = sum(total * mask) / part.count;
            for (int i = 0; i < area; i++) {
                v far = x[i] - part.mean[c];
                squares += far * far;
            }
            part.squares[c] = sum(squares * mask);
        }
    }

    // parts, in their order, into one (Chan et al. 1979)
    template <class Parts>
    static void merge(Parts part, int groups, float eps, Whole& whole) {
        whole.count = part(0).count;
        memcpy(whole.mean, part(0).mean, sizeof whole.mean);
        memcpy(whole.variance, part(0).squares, sizeof whole.variance);
        for (int g = 1; g < groups; g++) {
            const Part& next = part(g);
            const float both = whole.count + next.count, share = next.count / both;
            for (int c = 0; c < C; c++) {
                const float far = next.mean[c] - whole.mean[c];
                whole.mean[c] += far * share;
                whole.variance[c] += next.squares[c] + far * far * whole.count * share;
            }
            whole.count = both;
        }
        for (int c = 0; c < C; c++) {
            whole.variance[c] /= whole.count;
            whole.inverse[c] = 1 / std::sqrt(whole.variance[c] + eps);
        }
    }

    static void use_running(const float* mean, const float* variance, float eps, Whole& whole) {
        for (int c = 0; c < C; c++) {
            whole.mean[c] = mean[c];
            whole.inverse[c] = 1 / std::sqrt(variance[c] + eps);
        }
    }

    static void follow(const Whole& whole, float momentum, float* mean, float* variance) {
        const float unbiased = whole.count / (whole.count - 1);
        for (int c = 0; c < C; c++) {
            mean[c] += momentum * (whole.mean[c] - mean[c]);
            variance[c] += momentum * (whole.variance[c] * unbiased - variance[c]);
        }
    }

    static void tell(const Whole& whole, float* mean, float* variance) {
        memcpy(mean, whole.mean, sizeof whole.mean);
        memcpy(variance, whole.variance, sizeof whole.variance);
    }

    static void forward(const v* x, v* y, const Whole& whole, const float* w, const float* b) {
        for (int c = 0; c < C; c++, x += area, y += area) {
            const float scale = whole.inverse[c] * w[c];
            for (int i = 0; i < area; i++) y[i] = (x[i] - whole.mean[c]) * scale + b[c];
        }
    }

    // dy is zero in lanes without an image
    static void collect(const v* x, const v* dy, const Whole& whole, Part& part, float* gw, float* gb) {
        for (int c = 0; c < C; c++, x += area, dy += area) {
            v db = {}, dw = {};
            for (int i = 0; i < area; i++) {
                db += dy[i];
                dw += dy[i] * (x[i] - whole.mean[c]);
            }
            part.db[c] = sum(db);
            part.dw[c] = sum(dw) * whole.inverse[c];
            gb[c] += part.db[c];
            gw[c] += part.dw[c];
        }
    }

    template <class Parts>
    static void merge_backward(Parts part, int groups, Whole& whole) {
        for (int c = 0; c < C; c++) whole.db[c] = whole.dw[c] = 0;
        for (int g = 0; g < groups; g++)
            for (int c = 0; c < C; c++) {
                whole.db[c] += part(g).db[c];
                whole.dw[c] += part(g).dw[c];
            }
    }

    // in place (Ioffe and Szegedy 2015, section 3)
    static void backward(const v* x, v* dy, v mask, const Whole& whole, const float* w) {
        for (int c = 0; c < C; c++, x += area, dy += area) {
            const float scale = whole.inverse[c] * w[c], far = whole.dw[c] * whole.inverse[c] / whole.count;
            const float shift = whole.db[c] / whole.count;
            for (int i = 0; i < area; i++)
                dy[i] = (dy[i] - shift - (x[i] - whole.mean[c]) * far) * scale * mask;
        }
    }
};
