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
  EXPECT_EQ(d.least_norm_values, 0);
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
  EXPECT_EQ(d.least_norm_values, 4 * 4);
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

TEST(DryRun, CountsHalfOfCausalAttention) {
  // per token and layer 24 C^2 of matrices and 2 C (T + 1) ~ 2 C T of causal attention, as llm.c
  // counts, and 2 C V of the head
  ModelContext context;
  context.vocabulary = 100, context.context = 32;
  context.options = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
  const FixedFields fields({{"model.name", std::string("gpt2")},
                            {"model.layers", int64_t{2}},
                            {"model.heads", int64_t{2}},
                            {"model.width", int64_t{16}}});
  auto model = make_model(fields, context);
  const double tokens = 32;
  EXPECT_EQ(dry_run(*model, context).flops_per_sample_forward,
            tokens * (2 * (24 * 16 * 16 + 2 * 16 * 32) + 2 * 16 * 100));

  // the same as products: four matrices and one attention a layer, and the head
  double flops = 0;
  int64_t times = 0;
  for (const auto& p : products(*model, context, 3)) {
    times += p.times;
    if (p.op == "aten::scaled_dot_product_attention") {
      EXPECT_TRUE(p.causal);
      EXPECT_EQ(p.times, 2);
      EXPECT_EQ(p.sizes, std::vector<std::vector<int64_t>>(3, {3, 2, 32, 8}));
    } else {
      ASSERT_EQ(p.sizes.size(), 2U) << p.op;
      EXPECT_EQ(p.sizes[0].back(), p.sizes[1].front()) << p.op;
      EXPECT_TRUE(p.needs_gradient[1]) << p.op;
      flops += 2 * static_cast<double>(p.times * p.sizes[0].front() * p.sizes[0].back() *
                                       p.sizes[1].back());
    }
  }
  EXPECT_EQ(times, 2 * 5 + 1);
  EXPECT_EQ(flops, 3 * tokens * (2 * 24 * 16 * 16 + 2 * 16 * 100));
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
