// Names of the files in an artefact, and how it lies as a model of a Triton model repository.
#pragma once

#include <string>

namespace lehr::artefact {

constexpr const char* kModelName = "model.pt";
constexpr const char* kWeightsName = "model.safetensors";
constexpr const char* kRecipeName = "recipe.yaml";
constexpr const char* kMetricsName = "metrics.json";
constexpr const char* kStatisticsName = "statistics.json";
constexpr const char* kTokenizerName = "tokenizer.json";  // of language models
constexpr const char* kGoldenName = "golden.safetensors";
constexpr const char* kTritonModelName = "1/model.pt";
constexpr const char* kTritonConfigName = "config.pbtxt";

// config.pbtxt for the PyTorch (TorchScript) backend: the model is named after the folder, N
// becomes the batch dimension. `signature_json` as in the manifest; tensors only.
std::string triton_config(const std::string& folder, const std::string& signature_json);

}  // namespace lehr::artefact
