// ResNet-18 and 50 beside torchvision's, and the small CNN beside the network of its Python peer:
// our weights, running values, outputs and gradients go out as safetensors, and one Python process
// loads them by name and compares. Skipped loudly where the Python of scripts/setup is missing.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/base/safetensors.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

using nlohmann::json;
using Fields = std::vector<std::pair<std::string, Value>>;

void write(const std::string& path, const NamedTensors& tensors) {
  std::vector<at::Tensor> kept;
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.detach().contiguous());
    const at::Tensor& t = kept.back();
    views.push_back({name, t.scalar_type() == at::kLong ? "I64" : "F32", t.sizes().vec(),
                     t.const_data_ptr(), t.nbytes()});
  }
  write_safetensors(path, views);
}

void export_case(const std::string& path, const Fields& fields, int64_t channels, int64_t size) {
  ModelContext c;
  c.channels = channels, c.height = size, c.width = size, c.outputs = 10;
  c.options = at::TensorOptions().dtype(at::kFloat);
  auto model = make_model(FixedFields(fields), c);
  NamedTensors all, extra;
  for (const auto& p : model->parameters())
    if (p.tensor.numel() > 10000) extra.push_back({"test.initial." + p.name, p.tensor});
  at::manual_seed(3);
  {
    // norms that do something
    at::NoGradGuard no_grad;
    for (auto& [name, t] : model->parameters())
      if (t.dim() == 1) t.uniform_(0.5, 1.5);
    for (auto& [name, t] : model->buffers())
      if (t.is_floating_point()) t.uniform_(0.5, 1.5);
  }
  for (const auto& p : model->parameters()) all.push_back(p);
  for (const auto& b : model->buffers()) all.push_back({b.name, b.tensor.clone()});
  const auto x = at::randn({4, channels, size, size});
  extra.push_back({"test.x", x});
  model->train(false);
  {
    at::NoGradGuard no_grad;
    extra.push_back({"test.eval", model->forward(x)});
  }
  model->train();
  const auto outputs = model->forward(x);
  extra.push_back({"test.train", outputs});
  outputs.square().sum().backward();
  for (const auto& p : model->parameters())
    extra.push_back({"test.gradient." + p.name, p.tensor.grad()});
  for (const auto& b : model->buffers()) extra.push_back({"test.moved." + b.name, b.tensor});
  all.insert(all.end(), extra.begin(), extra.end());
  write(path, all);
}

const json& verdict() {
  static const json result = [] {
    const std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
    if (!file_exists(python)) return json();
    const std::string folder = fmt::format(
        "{}/lehr-torchvision-{}", std::filesystem::temp_directory_path().string(), getpid());
    std::filesystem::create_directories(folder);
    const std::string out = folder + "/verdict.json";
    export_case(folder + "/resnet18.safetensors", {{"model.name", std::string("resnet")}}, 3, 48);
    export_case(folder + "/resnet50.safetensors",
                {{"model.name", std::string("resnet")}, {"model.depth", int64_t{50}}}, 3, 48);
    export_case(folder + "/cnn.safetensors", {{"model.name", std::string("cnn")}}, 1, 28);
    const std::string command = fmt::format("{} {}/tests/models/torchvision_check.py {} {}", python,
                                            LEHR_SOURCE_DIR, folder, out);
    const int status = std::system(command.c_str());
    json read = status == 0 ? json::parse(std::ifstream(out)) : json();
    std::filesystem::remove_all(folder);
    if (status != 0) throw std::runtime_error("failed: " + command);
    return read;
  }();
  return result;
}

#define NEED_VERDICT() \
  if (verdict().is_null()) GTEST_SKIP() << "no Python peer: run scripts/setup"

TEST(BesideTorchvision, ParametersHaveTheSameNames) {
  NEED_VERDICT();
  for (const auto& [model, v] : verdict().items()) {
    EXPECT_TRUE(v["missing"].empty()) << model << " misses " << v["missing"];
    EXPECT_TRUE(v["extra"].empty()) << model << " has besides " << v["extra"];
  }
}

TEST(BesideTorchvision, OutputsAreTheSameForTheSameWeights) {
  NEED_VERDICT();
  for (const auto& [model, v] : verdict().items()) {
    EXPECT_LT(v["eval"].get<double>(), 1e-5) << model;
    EXPECT_LT(v["train"].get<double>(), 1e-5) << model;
  }
}

// Gradients through 50 batch norms of 4 samples amplify rounding; weights with a wrong structure
// are off by their own size.
TEST(BesideTorchvision, GradientsAndRunningValuesAreTheSame) {
  NEED_VERDICT();
  for (const auto& [model, v] : verdict().items()) {
    for (const auto& [name, difference] : v["gradients"].items())
      EXPECT_LT(difference.get<double>(), 1e-3) << model << " " << name;
    for (const auto& [name, difference] : v["buffers"].items())
      EXPECT_LT(difference.get<double>(), 1e-5) << model << " " << name;
  }
}

TEST(BesideTorchvision, InitialValuesHaveTheSameSpread) {
  NEED_VERDICT();
  for (const auto& [model, v] : verdict().items())
    for (const auto& [name, ratio] : v["deviations"].items())
      EXPECT_NEAR(ratio.get<double>(), 1, 0.05) << model << " " << name;
}

}  // namespace
}  // namespace lehr::models
