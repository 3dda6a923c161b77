#include "engine/export/layout.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

namespace lehr::artefact {
namespace {

constexpr int kMaxBatch = 1024;

std::string triton_type(const std::string& dtype) {
  if (dtype == "uint8") return "TYPE_UINT8";
  if (dtype == "int64") return "TYPE_INT64";
  return dtype == "float64" ? "TYPE_FP64" : "TYPE_FP32";
}

// the PyTorch backend tells tensors of forward apart by a number after two underscores
std::string entries(const nlohmann::json& tensors) {
  std::string text;
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<int64_t> dims;
    for (size_t d = 1; d < tensors[i]["shape"].size(); ++d)
      dims.push_back(tensors[i]["shape"][d].get<int64_t>());
    // Triton has no tensors without dimensions below the batch
    const std::string reshape = dims.empty() ? " reshape: { shape: [ ] }" : "";
    if (dims.empty()) dims.push_back(1);
    text += fmt::format("{}\n  {{ name: \"{}__{}\" data_type: {} dims: [ {} ]{} }}", i ? "," : "",
                        tensors[i]["name"].get<std::string>(), i, triton_type(tensors[i]["dtype"]),
                        fmt::join(dims, ", "), reshape);
  }
  return text + "\n";
}

}  // namespace

std::string triton_config(const std::string& folder, const std::string& signature_json) {
  const auto signature = nlohmann::json::parse(signature_json);
  return fmt::format(
      "name: \"{}\"\nplatform: \"pytorch_libtorch\"\nmax_batch_size: {}\ninput [{}]\noutput [{}]\n",
      std::filesystem::path(folder).filename().string(), kMaxBatch, entries(signature["inputs"]),
      entries(signature["outputs"]));
}

}  // namespace lehr::artefact
