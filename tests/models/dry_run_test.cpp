#include "models/flops.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

using namespace testing;

struct Case {
  std::vector<std::pair<std::string, Value>> fields;
  int64_t channels, size, outputs;
};

DryRun dry(const Case& c) {
  ModelContext context;
  context.channels = c.channels, context.height = c.size, context.width = c.size;
  context.outputs = c.outputs;
  context.options = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
  auto model = make_model(FixedFields(c.fields), context);
  model->train(false);
  const DryRun result = dry_run(*model, context);
  EXPECT_FALSE(model->is_training());
  return result;
}

TEST(DryRun, CountsALinearModelByHand) {
  const DryRun d = dry({{{"model.name", std::string("logistic")}}, 2, 3, 5});
  EXPECT_EQ(d.parameters, 18 * 5 + 5);
  EXPECT_EQ(d.parameter_bytes, 4 * d.parameters);
  EXPECT_EQ(d.buffer_bytes, 0);
  EXPECT_EQ(d.flops_per_sample_forward, 2 * 18 * 5);
  // the input is channels-last, so flattening copies it
  EXPECT_EQ(d.activation_bytes_per_sample, 4 * (18 + 5));
}

TEST(DryRun, CountsAConvolutionalModelByHand) {
  const DryRun d = dry({{{"model.name", std::string("cnn")},
                         {"model.channels", IntList{4}},
                         {"model.hidden", int64_t{0}},
                         {"model.batch_norm", true}},
                        1,
                        8,
                        3});
  EXPECT_EQ(d.parameters, 4 * 9 + 2 * 4 + 4 * 16 * 3 + 3);
  EXPECT_EQ(d.buffer_bytes, 2 * 4 * 4 + 8);
  EXPECT_EQ(d.flops_per_sample_forward, 2 * (9 * 4 * 64) + 2 * 64 * 3);
  // convolution, pool with int64 positions, norm (ReLU is in place), flattened copy, output
  EXPECT_EQ(d.activation_bytes_per_sample, 4 * 4 * 64 + (4 + 8) * 64 + 4 * 64 + 4 * 64 + 4 * 3);
}

TEST(DryRun, KnowsTheFiguresOfResnets) {
  // parameters as torchvision states them; multiply-adds 1.814 and 4.089 billion at 224 x 224
  const DryRun r18 = dry({{{"model.name", std::string("resnet")}}, 3, 224, 1000});
  EXPECT_EQ(r18.parameters, 11689512);
  EXPECT_NEAR(r18.flops_per_sample_forward / 2e9, 1.814, 0.001);
  const DryRun r50 =
      dry({{{"model.name", std::string("resnet")}, {"model.depth", int64_t{50}}}, 3, 224, 1000});
  EXPECT_EQ(r50.parameters, 25557032);
  EXPECT_NEAR(r50.flops_per_sample_forward / 2e9, 4.089, 0.001);
  EXPECT_GT(r50.activation_bytes_per_sample, r18.activation_bytes_per_sample);
}

TEST(DryRun, TakesEveryModelOfTheRegistry) {
  for (const auto& entry : registry()) {
    ModelContext context = entry.toy_context;
    context.options = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
    auto model = toy(entry, 1, at::kMeta);
    const DryRun d = dry_run(*model, context);
    EXPECT_TRUE(model->is_training());
    int64_t parameters = 0;
    for (const auto& [name, tensor] : toy(entry)->parameters()) parameters += tensor.numel();
    EXPECT_EQ(d.parameters, parameters) << entry.name;
    EXPECT_GT(d.flops_per_sample_forward, 0) << entry.name;
    EXPECT_GT(d.activation_bytes_per_sample, 0) << entry.name;
  }
}

}  // namespace
}  // namespace lehr::models
