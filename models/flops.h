// What a model costs, found without memory or data: one forward on the meta device, watched op by
// op. For `lehr check`; an estimate, see the fields.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.h"

namespace lehr::models {

struct DryRun {
  int64_t parameters = 0;  // numbers, not bytes
  int64_t parameter_bytes = 0, buffer_bytes = 0;
  // Convolutions, matrix products and attention (half of it where it is causal, as llm.c counts), a
  // multiply and an add counted as two. A backward takes twice as many, less for the first layer.
  // Norms, activations and pools are left out: they are bound by
  // memory.
  double flops_per_sample_forward = 0;
  // All that a training forward writes to new memory, as if it were kept until the backward: an
  // upper bound that is near for networks of convolution, norm and activation. In the dtype of
  // `context`.
  int64_t activation_bytes_per_sample = 0;
  // That a sample gives each channel of the batch norm which gets fewest; 0: there is no batch
  // norm.
  int64_t least_norm_values = 0;
};

// `model` must have been made on the meta device with `context`. Its mode is the same afterwards.
DryRun dry_run(Model& model, const ModelContext& context);

// One of the products counted above, as often as a forward makes it.
struct Product {
  std::string op;                           // "aten::mm", "aten::addmm", "aten::convolution", ...
  std::vector<std::vector<int64_t>> sizes;  // of the two factors, or of query, key and value
  std::vector<bool> needs_gradient;         // likewise
  std::vector<int64_t> stride, padding;     // of a convolution
  bool causal = false;                      // of attention
  int64_t times = 1;
  bool same_as(const Product& other) const;
};
// Those of a training forward over `batch` samples; `model` as for dry_run.
std::vector<Product> products(Model& model, const ModelContext& context, int64_t batch);

}  // namespace lehr::models
