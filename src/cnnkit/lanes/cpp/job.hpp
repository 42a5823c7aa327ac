// What Python passes to the library: the same structures as in library.py, which compares their sizes.
#pragma once
#include <cstdint>

enum Kind : int32_t { NONE, SGD, ADAM, ADAMW };

struct Optimizer {  // settings that all parameters share
    int32_t kind, nesterov;
    float momentum, beta1, beta2, eps;
    int64_t steps_taken;  // before this job
};

struct Parameter {
    float *value, *moment1, *moment2;  // moments: null where the optimizer has none
    int64_t size;
    float lr_factor, weight_decay;
    int32_t learns;
};

struct Job {
    const uint8_t* bytes;  // images x channels x height x width, of all steps; or null, and
    const float* floats;
    const int64_t* labels;
    const float *scale, *shift;  // of bytes, by channel
    const int64_t* sizes;        // of the batches
    const float* rates;
    const uint32_t* seeds;
    const Parameter* parameters;
    float* const* statistics;  // running means and variances; `measure` writes a batch's there
    const Optimizer* optimizer;
    double* losses;    // output: the mean loss of each batch
    int64_t* correct;  // output: the number of correct images of each batch
    float* gradients;  // output: the last step's, or null
    float* logits;     // output of `predict`
    int64_t steps, images;
    float smoothing;
};
