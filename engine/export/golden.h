// Golden samples: raw inputs and the answers that the trained model gave, in a file that travels
// with it, so that any later build, machine or server can be asked whether it still answers the
// same.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/export/trace.h"

namespace lehr::artefact {

// Absolute and relative difference of float answers that another machine may show; the same build
// on the same CPU shows none. Bits of fp32 sums depend on vector width: 4e-8 was seen, 1e-5 is far
// from both that and from a wrong answer.
constexpr double kGoldenTolerance = 1e-5;
constexpr int64_t kGoldenSamples = 16;
// of text: the logits of a token are as many as the vocabulary
constexpr int64_t kGoldenTexts = 2, kGoldenTokens = 16;

struct Golden {
  data::RawBatch inputs;
  std::vector<std::string> output_names;
  std::vector<at::Tensor> outputs;
};

// Tensors input.images, input.tokens, or input.numbers and input.strings (the rows as JSON text in
// uint8), and output.<name>; see FORMAT.md. `path` must not exist.
void write_golden(const std::string& path, const Golden& golden);
// Throws Error{kCheckpoint}.
Golden read_golden(const std::string& path);
// Largest share of the tolerance that the script's answers use: 0 the same bits, <= 1 within it. A
// label may differ only where its probability ties with the golden label's within the tolerance.
// Infinity when shapes, dtypes or finiteness differ, or when they are not answered at all.
double replay(const Script& script, const Golden& golden);

}  // namespace lehr::artefact
