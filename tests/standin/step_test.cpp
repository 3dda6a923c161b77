// A step on the stand-in device gives the CPU's bits, on one rank and on several with a device
// each, and the host waits for the device once.
#include "engine/step/step.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "engine/base/host_bytes.h"
#include "tests/models/toy.h"
#include "tests/standin/chosen.h"  // first: it loads the device

namespace lehr::step {
namespace {

constexpr int64_t kSteps = 5;

struct Case {
  const char* name;
  const char* model;
  std::vector<std::pair<std::string, Value>> values;
  int64_t micro = 1;  // micro-batches of a rank; in fixed order, of all
  // Masks of dropout that are drawn in a micro-batch, each of which crosses to the device; -1: the
  // steps have no budget.
  int64_t masks = 2;
};

Value text(const char* value) { return std::string(value); }
const std::pair<std::string, Value> kFixed{"parallelism.reduction", text("fixed_order")},
    kSynchronised{"parallelism.batch_norm", text("synchronised")},
    kCustom{"training.kernels", text("custom")}, kAten{"training.kernels", text("aten")},
    kAverage{"training.ema_decay", 0.9}, kClip{"training.max_grad_norm", 0.5},
    kSgd{"optimizer.name", text("sgd")};
std::pair<std::string, Value> precision(const char* name) {
  return {"training.precision", text(name)};
}
std::pair<std::string, Value> zero(int64_t stage) { return {"parallelism.zero_stage", stage}; }
std::pair<std::string, Value> shards(int64_t count) {
  return {"parallelism.logical_shards", count};
}

const Case kCases[] = {
    {"plain", "mlp", {kCustom}},
    {"ATen's kernels", "mlp", {kAten}},
    {"accumulated", "mlp", {kCustom, kClip}, 3},
    {"averaged", "mlp", {kCustom, kClip, kAverage}, 2},
    {"class weights and SGD",
     "mlp",
     {kCustom,
      kSgd,
      kClip,
      {"loss.class_weights", FloatList{1, 2, 4}},
      {"loss.label_smoothing", 0.1}},
     2},
    {"bf16-mixed", "mlp", {kCustom, kClip, precision("bf16-mixed")}, 2},
    {"fp16-mixed", "mlp", {kCustom, kClip, precision("fp16-mixed")}, 2},
    {"bf16-master", "mlp", {kCustom, kClip, kAverage, precision("bf16-master")}, 2},
    {"compressed", "mlp", {kCustom, {"parallelism.compression", text("bf16")}}},
    {"zero 1", "mlp", {kCustom, kClip, kAverage, zero(1)}, 2},
    {"zero 2", "mlp", {kCustom, kClip, zero(2)}, 2},
    {"zero 2, bf16-master", "mlp", {kCustom, kClip, zero(2), precision("bf16-master")}, 2},
    {"fixed order", "mlp", {kCustom, kClip, kFixed, shards(4)}, 4},
    {"fixed order, empty shards", "mlp", {kCustom, kFixed, shards(16)}, 16},
    {"batch norm", "cnn", {kCustom, kClip}, 2, 1},
    {"batch norm, bf16-mixed", "cnn", {kCustom, precision("bf16-mixed")}, 1, 1},
    {"batch norm, ATen's kernels", "cnn", {kAten, kSgd}, 1, 1},
    {"batch norm, fixed order", "cnn", {kCustom, kFixed, shards(4)}, 4, 1},
    {"synchronised", "cnn", {kCustom, kClip, kSynchronised}, 2, 1},
    {"synchronised, zero 2", "cnn", {kCustom, kSynchronised, zero(2)}, 2, 1},
    {"a sample that is not finite", "cnn", {kCustom, {"training.non_finite", text("skip")}}, 2, -1},
    {"GPT-2", "gpt2", {kAten}, 2, 5},
    {"GPT-2, bf16-mixed", "gpt2", {kAten, precision("bf16-mixed")}, 1, 5},
    {"GPT-2, recomputed", "gpt2", {kAten, {"activation_checkpoint.mode", text("full")}}, 1, 9},
    {"GPT-2, recomputed in bf16",
     "gpt2",
     {kAten, precision("bf16-mixed"), {"activation_checkpoint.mode", text("selective")}},
     1,
     9},
    {"Llama, bf16-master", "llama", {kAten, precision("bf16-master"), zero(1)}, 2, 0},
};

const models::ModelEntry& entry_of(const std::string& name) {
  for (const auto& entry : models::registry())
    if (entry.name == name) return entry;
  throw std::runtime_error("no model " + name);
}

// Samples [from, to).
Batch batch_of(const models::ModelEntry& entry, int64_t from, int64_t to) {
  static std::mutex mutex;  // of the generator that all ranks draw from
  const std::lock_guard lock(mutex);
  Batch batch;
  if (from == to) return batch;
  batch.inputs = models::testing::toy_input(entry, to).slice(0, from).clone();
  batch.targets = models::testing::toy_targets(entry, to);
  if (entry.takes_text) batch.targets = batch.targets.view({to, -1});
  batch.targets = batch.targets.slice(0, from).clone();
  for (int64_t i = from; i < to; ++i) batch.samples.push_back(i);
  return batch;
}

// as the loader does
void cross(Batch& batch) {
  if (!batch.inputs.defined()) return;
  DeviceRuntime& runtime = *standin::kChosen.runtime;
  batch.inputs = runtime.copy_in(runtime.pin(batch.inputs));
  batch.host_targets = runtime.pin(batch.targets);
  batch.targets = runtime.copy_in(batch.host_targets);
}

struct Outcome {
  NamedTensors tensors;  // weights, buffers, state, averages
  std::vector<double> losses, norms;
  std::vector<bool> skipped;
  std::vector<standin::Counts> counts;  // of each step
};

Outcome train(const Case& c, dist::World* world, int rank, int ranks, bool on_device) {
  const auto& entry = entry_of(c.model);
  FixedFields fields = entry.toy_fields;
  for (const auto& [key, value] : c.values) fields.set(key, value);
  const at::Device device = on_device ? standin::kChosen.device(rank) : at::Device(at::kCPU);
  const c10::DeviceGuard guard(device);
  models::ModelContext model_context = entry.toy_context;
  model_context.seed = 1;
  model_context.options = at::TensorOptions(at::kFloat).device(device);
  auto model = entry.make(fields, model_context);
  StepContext context;
  context.device = device;
  context.world = world;
  context.seed = 3;
  context.is_text = entry.takes_text;
  if (on_device) context.runtime = standin::kChosen.runtime;
  Step step(model, fields, context);

  const bool fixed = fields.get<ParallelismFields>().reduction == "fixed_order";
  const bool skips = fields.get<TrainingFields>().non_finite == "skip";
  const int64_t parts = fixed ? c.micro : c.micro * ranks, each = parts / ranks;
  const auto size_of = [](int64_t i) { return i == 2 ? 13 : 16; };  // a short one between
  std::vector<std::vector<Batch>> steps(kSteps);
  for (int64_t i = 0; i < kSteps; ++i) {
    const int64_t size = size_of(i);
    for (int64_t part = rank * each; part < (rank + 1) * each; ++part) {
      Batch batch =
          batch_of(entry, 16 * i + size * part / parts, 16 * i + size * (part + 1) / parts);
      if (skips && i == 3 && rank == 0) batch.inputs[0].fill_(NAN);
      if (on_device) cross(batch);
      steps[static_cast<size_t>(i)].push_back(std::move(batch));
    }
  }
  Outcome outcome;
  for (int64_t i = 0; i < kSteps; ++i) {
    const size_t now = static_cast<size_t>(i), next = now + 1;
    const standin::Counts before = standin::kChosen.counts(rank);
    const StepReport report = step.take(steps[now], [&](double) {
      return Beside{{1.0 + rank}, next < steps.size() ? &steps[next] : nullptr};
    });
    outcome.counts.push_back(standin::kChosen.counts(rank) - before);
    const std::vector<double> said{world ? ranks * (ranks + 1) / 2.0 : 1};
    EXPECT_EQ(report.aside, said);
    EXPECT_EQ(report.samples, size_of(i));
    if (on_device && !standin::kChosen.is_gpu) {
      EXPECT_EQ(report.own_seconds, i == 0 ? 0 : 0.5);
    }
    outcome.losses.push_back(report.loss);
    outcome.norms.push_back(report.grad_norm);
    outcome.skipped.push_back(report.skipped);
  }
  for (const auto& tensors : {step.weights(), model->buffers(), step.state()})
    for (const auto& t : tensors)
      outcome.tensors.push_back({t.name, t.tensor.detach().cpu().clone()});
  return outcome;
}

std::vector<Outcome> train(const Case& c, int ranks, bool on_device) {
  auto worlds = dist::thread_worlds(ranks);
  std::vector<Outcome> all(worlds.size());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      try {
        all[r] = train(c, ranks == 1 ? nullptr : worlds[r].get(), rank, ranks, on_device);
      } catch (const std::exception& e) {  // ends the program: the other ranks would wait for good
        throw std::runtime_error(std::string(c.name) + ": " + e.what());
      }
    });
  for (auto& thread : threads) thread.join();
  return all;
}

// Of a step: the host waits once, for one copy of the losses, the norm, and what ranks have said.
// To the device cross, from pinned memory, masks of dropout and what this rank says.
void expect_budget(const Case& c, const standin::Counts& counts, int ranks, bool fixed) {
  const int64_t micro = fixed ? c.micro / ranks : c.micro;
  EXPECT_LE(counts.in, c.masks * micro + (ranks > 1 && !fixed ? 1 : 0));
  EXPECT_EQ(counts.out, 1);
  EXPECT_EQ(counts.waits, 1);
}

TEST(StepOnADevice, GivesTheCpusBitsAndWaitsOnce) {
  const bool is_gpu = standin::kChosen.is_gpu;
  for (const Case& c : kCases)
    for (int ranks : is_gpu ? std::vector{1} : std::vector{1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << c.name << ", " << c.model << ", " << ranks << " ranks");
      const auto on_cpu = train(c, ranks, false), on_device = train(c, ranks, true);
      const FixedFields fields(c.values);
      const bool aten = fields.get<TrainingFields>().kernels == "aten";  // its norm is another
      const bool fixed = fields.get<ParallelismFields>().reduction == "fixed_order";
      for (size_t r = 0; r < on_cpu.size(); ++r) {
        const Outcome &cpu = on_cpu[r], &device = on_device[r];
        EXPECT_EQ(cpu.skipped, device.skipped);
        for (size_t i = 0; i < kSteps; ++i) {
          if (cpu.skipped[i]) continue;
          EXPECT_NEAR(cpu.losses[i], device.losses[i], is_gpu ? 2e-2 : 0) << i;
          if (is_gpu) continue;
          EXPECT_NEAR(cpu.norms[i], device.norms[i], aten ? 1e-5 * cpu.norms[i] : 0);
        }
        if (is_gpu) continue;
        ASSERT_EQ(cpu.tensors.size(), device.tensors.size());
        for (size_t t = 0; t < cpu.tensors.size(); ++t)
          EXPECT_TRUE(same_bytes(cpu.tensors[t].tensor, device.tensors[t].tensor))
              << cpu.tensors[t].name;
        // the first step may make what stays
        for (size_t i = 1; c.masks >= 0 && i < kSteps; ++i)
          expect_budget(c, device.counts[i], ranks, fixed);
      }
    }
}

TEST(StandIn, HoldsItsMemoryFromTheHost) {
  if (standin::kChosen.is_gpu) GTEST_SKIP() << "of the stand-in alone";
  const at::Tensor tensor = at::ones({16}).to(standin::kChosen.device(0));
  EXPECT_EQ(tensor.sum().item<float>(), 16);
  EXPECT_EXIT(
      {
        volatile float value = *static_cast<const float*>(tensor.const_data_ptr());
        (void)value;
      },
      ::testing::KilledBySignal(SIGSEGV), "");
}

TEST(StandIn, SeesPinnedMemoryWrittenBeforeItsCopyIsDone) {
  if (standin::kChosen.is_gpu) GTEST_SKIP() << "of the stand-in alone";
  DeviceRuntime& runtime = *standin::kChosen.runtime;
  at::Tensor host = runtime.pin(at::ones({8}));
  const at::Tensor there = runtime.copy_in(host);
  host.fill_(2);
  EXPECT_THROW(there.sum().item<float>(), c10::Error);
  EXPECT_THROW(runtime.copy_in(at::ones({8})), c10::Error);  // is not pinned
}

}  // namespace
}  // namespace lehr::step
