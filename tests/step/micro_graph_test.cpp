// A micro-batch that is recorded and replayed, on a stand-in for the device: its replays run the
// recorded work again and leave the results in the memory of the first time, as a graph's do. What
// a real graph does is for a GPU's tests.
#include "engine/step/micro_graph.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

class Recorder : public DeviceRuntime {
 public:
  NamedTensors parameters;
  int recorded = 0, replayed = 0;
  bool refuses = false;

  std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work) override {
    struct Replay : RecordedWork {
      Recorder& recorder;
      std::function<void(bool)> work;
      std::vector<at::Tensor> gradients;
      Replay(Recorder& r, std::function<void(bool)> w) : recorder(r), work(std::move(w)) {}
      void replay() override {
        ++recorder.replayed;
        work(false);
        const c10::NoGradGuard no_grad;
        for (size_t i = 0; i < gradients.size(); ++i)
          gradients[i].copy_(recorder.parameters[i].tensor.grad());
      }
    };
    ++recorded;
    for (int i = 0; i < 3; ++i) work(false);
    TORCH_CHECK(!refuses, "operation not permitted when stream is capturing");
    work(true);
    auto replay = std::make_unique<Replay>(*this, work);
    for (const auto& p : parameters) {
      replay->gradients.push_back(p.tensor.grad());
      replay->gradients.back().fill_(std::nanf(""));  // while recording nothing is computed
    }
    return replay;
  }
  at::DeviceType type() const override { return at::kCPU; }
  std::vector<DeviceInfo> devices() override { return {}; }
  std::string versions() override { return ""; }
  at::Tensor pin(const at::Tensor& host) override { return host; }
  at::Tensor copy_in(const at::Tensor& host) override { return host; }
  std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>&,
                                    const std::vector<void*>&) override {
    return nullptr;
  }
  void lock_pages(void*, size_t) override {}
  void unlock_pages(void*) override {}
  void synchronize() override {}
  int64_t peak_bytes() override { return 0; }
};

FixedFields graph_fields() {
  return FixedFields({{"training.cuda_graph", true}, {"training.max_grad_norm", 0.5}});
}

TEST(MicroGraph, TrainsAsWithoutIt) {
  const toy::Shape shape{.batch_norm = true};
  for (const char* precision : {"fp32", "bf16-master"}) {
    auto plain = toy::mlp(shape), replayed = toy::mlp(shape);
    FixedFields fields = graph_fields().set("training.precision", std::string(precision));
    Step without(plain, fields, {});
    Recorder recorder;
    StepContext context;
    context.runtime = &recorder;
    Step with(replayed, fields, context);
    recorder.parameters = replayed->parameters();
    for (uint64_t i = 0; i < 6; ++i) {
      // whole batches, several of them, and a short last one, which is not of the recorded shape
      const Batch batch = toy::classes(i % 2 ? 8 : 20, 5, 3, i);
      const auto micro = i % 2 ? std::vector<Batch>{batch} : toy::split(batch, {8, 8, 4});
      const StepReport a = without.take(micro), b = with.take(micro);
      EXPECT_NEAR(a.loss, b.loss, 1e-6) << precision << i;
      EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-6) << precision << i;
    }
    EXPECT_LT(toy::largest_difference(without.weights(), with.weights()), 1e-6) << precision;
    EXPECT_LT(toy::largest_difference(plain->buffers(), replayed->buffers()), 1e-6) << precision;
    EXPECT_EQ(recorder.recorded, 1);
    EXPECT_EQ(recorder.replayed, 3 * 2 + 3);
  }
}

std::string refusal(Step& step) {
  try {
    step.take({toy::classes(8)});
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kRecipe);
    EXPECT_EQ(e.where(), "training.cuda_graph");
    return e.what();
  }
  return "";
}

TEST(MicroGraph, RefusesDropoutAndWhatCannotBeRecorded) {
  Recorder recorder;
  StepContext context;
  context.runtime = &recorder;
  {
    Step step(toy::mlp({.dropout = 0.5}), graph_fields(), context);
    EXPECT_NE(refusal(step).find("dropout"), std::string::npos);
  }
  recorder.refuses = true;
  Step step(toy::mlp(), graph_fields(), context);
  EXPECT_NE(refusal(step).find("not permitted"), std::string::npos);
}

}  // namespace
}  // namespace lehr::step
