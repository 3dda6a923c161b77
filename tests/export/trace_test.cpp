// A traced model is the live one: the same bits at any batch, the same names, nothing left behind.
#include "engine/export/trace.h"

#include "engine/export/scan.h"
#include "engine/export/verify.h"
#include "tests/export/toy.h"

namespace lehr::artefact {
namespace {

using namespace testing;

at::Tensor example(const models::ModelContext& context, int64_t count) {
  // another length beside each batch size
  if (context.vocabulary > 0)
    return ((uniform({count, 1 + count % context.context}, 1) + 0.5) * context.vocabulary)
        .to(at::kLong);
  if (context.features > 0) return uniform({count, context.features}, 1);
  return uniform({count, context.channels, context.height, context.width}, 1)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(Trace, EveryRegisteredModelKeepsItsBitsAtAnyBatch) {
  for (const auto& entry : models::registry()) {
    FixedFields fields = entry.toy_fields;
    auto model = models::make_model(fields.set("model.name", entry.name), entry.toy_context);
    const Script core = trace(*model, example(entry.toy_context, 2));
    const Script loaded = load_script(core.archive());
    for (int64_t count : {1, 2, 3, 17})
      EXPECT_EQ(first_difference(loaded, *model, example(entry.toy_context, count)), "")
          << entry.name;
    EXPECT_NO_THROW(scan_operators(loaded.operators(), entry.name));
    EXPECT_NO_THROW(scan_archive(core.archive(), entry.name));

    data::DataInfo info;
    info.channels = entry.toy_context.channels, info.height = entry.toy_context.height;
    info.width = entry.toy_context.width, info.features = entry.toy_context.features;
    info.is_image = info.channels > 0;
    info.vocabulary = entry.toy_context.vocabulary, info.context = entry.toy_context.context;
    info.is_text = info.vocabulary > 0;
    std::string why;
    EXPECT_TRUE(exports(model, info, &why)) << entry.name << ": " << why;
  }
}

TEST(Trace, KeepsTheNamesOfParametersAndBuffers) {
  ToyNet model(1, 10);
  const Script core =
      load_script(trace(model, example({.channels = 1, .height = 8, .width = 8}, 2)).archive());
  std::map<std::string, at::Tensor> held;
  for (const auto& [name, tensor] : core.tensors()) held[name] = tensor;
  NamedTensors all = model.parameters();
  for (auto& buffer : model.buffers()) all.push_back(buffer);
  ASSERT_EQ(held.size(), all.size());
  for (const auto& [name, tensor] : all) {
    ASSERT_TRUE(held.count(name)) << name;
    EXPECT_TRUE(same_bits(held[name], tensor.detach())) << name;
  }
  EXPECT_TRUE(held.count("head.fc2.weight"));
}

TEST(Trace, LeavesTheModelInTheModeItHad) {
  ToyNet model(1, 10);
  const auto x = example({.channels = 1, .height = 8, .width = 8}, 2);
  const auto before = model.conv->mean.clone();
  trace(model, x);
  EXPECT_TRUE(model.is_training());
  EXPECT_TRUE(same_bits(model.conv->mean, before));  // a batch in training mode would have moved it
  model.train(false);
  trace(model, x);
  EXPECT_FALSE(model.is_training());
}

TEST(Trace, TheSameModelGivesTheSameFile) {
  const auto x = example({.channels = 1, .height = 8, .width = 8}, 2);
  ToyNet a(1, 10), b(1, 10);
  EXPECT_EQ(trace(a, x).archive(), trace(b, x).archive());
}

TEST(Trace, AFailingModelLeavesNoTraceOpen) {
  struct Failing : models::Model {
    at::Tensor forward(const at::Tensor& x) override { return at::mm(x, x.t()).view({7, 7, 7}); }
  };
  Failing failing;
  EXPECT_ANY_THROW(trace(failing, uniform({2, 3}, 1)));
  ToyNet model(1, 10);
  const auto x = example({.channels = 1, .height = 8, .width = 8}, 3);
  EXPECT_EQ(first_difference(trace(model, x), model, x), "");
}

TEST(DryTrace, NamesWhatStopsAModel) {
  data::DataInfo info;
  info.is_image = true, info.channels = 1, info.height = 8, info.width = 8;
  std::string why;
  EXPECT_TRUE(exports(std::make_shared<ToyNet>(1, 10), info, &why)) << why;
  EXPECT_FALSE(exports(std::make_shared<ToyNet>(1, 10, Fault::kFixedBatch), info, &why));
  EXPECT_NE(why.find("after layer `conv`"), std::string::npos) << why;
  EXPECT_FALSE(exports(std::make_shared<ToyNet>(1, 10, Fault::kBranch), info, &why));
  EXPECT_NE(why.find("head.fc1"), std::string::npos) << why;
  EXPECT_FALSE(exports(std::make_shared<ToyNet>(1, 10, Fault::kRandom), info, &why));
  EXPECT_NE(why.find("aten::bernoulli"), std::string::npos) << why;
}

}  // namespace
}  // namespace lehr::artefact
