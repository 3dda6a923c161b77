// Beside PyTorch: one Python process (reference.py) writes its numbers, these tests compare.
// Skipped loudly where the Python of scripts/setup is missing.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/step/loss.h"
#include "engine/step/schedule.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

using nlohmann::json;

const json& reference() {
  static const json numbers = [] {
    const std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
    const std::string out = LEHR_BINARY_DIR "/tests/step_reference.json";
    if (!file_exists(python)) return json();
    std::remove(out.c_str());
    std::string command = python + " " + LEHR_SOURCE_DIR "/tests/step/reference.py " + out;
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
    std::ifstream file(out);
    return json::parse(file);
  }();
  return numbers;
}

#define NEED_REFERENCE() \
  if (reference().is_null()) GTEST_SKIP() << "no Python peer: run scripts/setup"

at::Tensor tensor(const json& nested) {
  std::vector<int64_t> sizes;
  for (const json* level = &nested; level->is_array(); level = &level->at(0))
    sizes.push_back(static_cast<int64_t>(level->size()));
  std::vector<double> flat;
  auto walk = [&](auto&& self, const json& level) -> void {
    if (!level.is_array()) return flat.push_back(level.get<double>());
    for (const auto& below : level) self(self, below);
  };
  walk(walk, nested);
  return at::tensor(flat, at::kDouble).to(at::kFloat).reshape(sizes);
}

Value value(const json& v) {
  if (v.is_boolean()) return v.get<bool>();
  if (v.is_string()) return v.get<std::string>();
  if (v.is_number()) return v.get<double>();
  if (v.is_array() && (v.empty() || v[0].is_string())) return v.get<StringList>();
  if (v.is_array()) return v.get<FloatList>();
  FloatMap map;
  for (const auto& [key, number] : v.items()) map.emplace_back(key, number.get<double>());
  return map;
}

TEST(LossReference, ValuesAndGradientsAreThoseOfPyTorch) {
  NEED_REFERENCE();
  for (const auto& c : reference()["losses"]) {
    SCOPED_TRACE(c["name"].get<std::string>() + c["fields"].dump());
    LossFields fields;
    fields.name = c["name"];
    const json& f = c["fields"];
    if (f.contains("class_weights")) fields.class_weights = f["class_weights"].get<FloatList>();
    fields.label_smoothing = f.value("label_smoothing", 0.0);
    fields.pos_weight = f.value("pos_weight", 1.0);
    fields.delta = f.value("delta", 1.0);
    auto loss = make_loss(fields);
    at::Tensor outputs = tensor(c["outputs"]).set_requires_grad(true),
               targets = tensor(c["targets"]);
    if (targets.dim() == 1) targets = targets.to(at::kLong);
    at::Tensor mean = loss->sum(outputs, targets) / loss->weight(targets);
    mean.backward();
    EXPECT_NEAR(mean.item<double>(), c["loss"].get<double>(),
                1e-6 * std::abs(c["loss"].get<double>()) + 1e-7);
    EXPECT_LE((outputs.grad() - tensor(c["gradient"])).abs().max().item<double>(), 1e-7);
  }
}

TEST(ScheduleReference, FollowsPyTorch) {
  NEED_REFERENCE();
  auto expect = [](const char* name, const ScheduleFields& fields, int64_t total) {
    SCOPED_TRACE(name);
    const json& rates = reference()["schedules"][name];
    Schedule schedule(fields, total, 0);
    for (size_t i = 0; i < rates.size(); ++i)
      EXPECT_NEAR(0.4 * schedule.factor(static_cast<int64_t>(i)), rates[i].get<double>(), 1e-9)
          << "step " << i;
  };
  ScheduleFields f;
  f.name = "one_cycle";
  expect("one_cycle", f, 50);
  f.pct_start = 0.6, f.div_factor = 10, f.final_div_factor = 100;
  expect("one_cycle_late", f, 37);
  f = {}, f.name = "cosine", f.min_lr_factor = 0.1;
  expect("cosine", f, 50);
  f.name = "linear";
  expect("linear", f, 50);
  f = {}, f.name = "step", f.gamma = 0.5, f.step_size = Duration{12};
  expect("step", f, 0);
  f = {}, f.name = "step", f.gamma = 0.3, f.milestones = {Duration{20}, Duration{5}, Duration{21}};
  expect("milestones", f, 0);
}

TEST(OptimizerReference, AgreesWithPyTorchOverAHundredSteps) {
  NEED_REFERENCE();
  const json& all = reference()["optimizers"];
  std::vector<Batch> batches;
  for (const auto& b : all["batches"]) {
    Batch batch;
    batch.inputs = tensor(b["x"]);
    batch.targets = tensor(b["y"]).to(at::kLong);
    batch.samples.resize(8);
    batches.push_back(batch);
  }
  for (const auto& c : all["cases"])
    for (const char* kernels : {"custom", "aten"}) {
      SCOPED_TRACE(c["name"].get<std::string>() + ", " + kernels);
      FixedFields fields({{"training.kernels", std::string(kernels)}});
      for (const auto& [key, v] : c["fields"].items()) fields.set(key, value(v));
      auto model = toy::mlp();
      {
        c10::NoGradGuard no_grad;
        for (auto& [name, t] : model->parameters()) t.copy_(tensor(all["start"][name]));
      }
      Step step(model, fields, {});
      for (size_t i = 0; i < 100; ++i) {
        StepReport report = step.take({batches[i % batches.size()]});
        EXPECT_NEAR(report.loss, c["losses"][i].get<double>(), 1e-6);
        EXPECT_NEAR(report.grad_norm, c["norms"][i].get<double>(), 2e-6);
      }
      for (const auto& [name, t] : model->parameters()) {
        double difference = (t - tensor(c["end"][name])).abs().max().item<double>();
        EXPECT_LE(difference, 1e-6) << name;
      }
    }
}

}  // namespace
}  // namespace lehr::step
