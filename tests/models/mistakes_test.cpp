// What a user gets wrong about models, and what the message must name.
#include "engine/base/error.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

ModelContext context(int64_t channels, int64_t features) {
  ModelContext c;
  c.channels = channels, c.features = features, c.outputs = 2;
  if (channels > 0) c.height = 8, c.width = 8;
  c.options = at::TensorOptions().dtype(at::kFloat);
  return c;
}

Error mistake(const std::vector<std::pair<std::string, Value>>& fields, const ModelContext& c) {
  try {
    make_model(FixedFields(fields), c);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kRecipe);
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(Code::kInternal, "none");
}

TEST(MakeModel, NamesTheNearestModel) {
  const Error e = mistake({{"model.name", std::string("resnett")}}, context(1, 0));
  EXPECT_EQ(e.where(), "model.name");
  EXPECT_NE(e.hint().find("resnet"), std::string::npos);
}

TEST(MakeModel, RefusesATableForAModelOfImages) {
  const Error e = mistake({{"model.name", std::string("cnn")}}, context(0, 7));
  EXPECT_NE(e.message().find("tables"), std::string::npos);
  EXPECT_NE(e.hint().find("mlp"), std::string::npos);
}

TEST(MakeModel, RefusesMoreStagesThanTheImageCanBeHalved) {
  const Error e = mistake(
      {{"model.name", std::string("cnn")}, {"model.channels", IntList{2, 2, 2, 2}}}, context(1, 0));
  EXPECT_EQ(e.where(), "model.channels");
}

TEST(MakeModel, RefusesADepthThatIsNoResnet) {
  const Error e =
      mistake({{"model.name", std::string("resnet")}, {"model.depth", int64_t{20}}}, context(1, 0));
  EXPECT_EQ(e.where(), "model.depth");
}

TEST(MakeModel, MakesEachModelByItsName) {
  for (const auto& entry : registry()) {
    ModelContext any =
        entry.toy_context.channels > 0 ? context(entry.toy_context.channels, 0) : context(0, 7);
    if (entry.takes_text) any = entry.toy_context;
    any.options = any.options.device(at::kMeta);  // at their full size
    EXPECT_NE(make_model(FixedFields({{"model.name", entry.name}}), any), nullptr);
  }
}

}  // namespace
}  // namespace lehr::models
