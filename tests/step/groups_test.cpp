#include "engine/step/groups.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

StringList names(const Group& group) {
  StringList list;
  for (const auto& p : group.parameters) list.push_back(p.name);
  return list;
}

NamedTensors parameters() { return toy::mlp({.batch_norm = true})->parameters(); }

TEST(Groups, SpareNormsAndBiasesByDefaultAndSaySo) {
  OptimizerFields fields;
  Groups groups = make_groups(parameters(), fields);
  ASSERT_EQ(groups.groups.size(), 2u);
  EXPECT_EQ(names(groups.groups[0]), (StringList{"fc1.weight", "fc2.weight"}));
  EXPECT_EQ(groups.groups[0].weight_decay, 0.01);
  EXPECT_EQ(names(groups.groups[1]),
            (StringList{"fc1.bias", "bn1.weight", "bn1.bias", "fc2.bias"}));
  EXPECT_EQ(groups.groups[1].weight_decay, 0);
  std::string text = describe(groups, fields);
  EXPECT_NE(text.find("no weight decay (norms and biases): 4 tensors, 24 numbers"),
            std::string::npos)
      << text;
}

TEST(Groups, TheFirstMatchingPatternCounts) {
  OptimizerFields fields;
  fields.no_decay = StringList{};
  fields.lr_factors = {{"^fc1", 0.1}, {"weight", 0.5}};
  Groups groups = make_groups(parameters(), fields);
  ASSERT_EQ(groups.groups.size(), 3u);
  EXPECT_EQ(names(groups.groups[0]), (StringList{"fc1.weight", "fc1.bias"}));
  EXPECT_EQ(names(groups.groups[1]), (StringList{"bn1.weight", "fc2.weight"}));
  EXPECT_EQ(groups.groups[2].weight_decay, 0.01);  // [] decays biases as well
}

TEST(Groups, SgdHasNoDecayUnlessAsked) {
  OptimizerFields fields;
  fields.name = "sgd";
  EXPECT_EQ(make_groups(parameters(), fields).groups.size(), 1u);
}

TEST(Groups, NameAPatternThatMatchesNothing) {
  for (int which = 0; which < 4; ++which) {
    OptimizerFields fields;
    if (which == 0) fields.freeze = {"fc1.weigth"};
    if (which == 1) fields.no_decay = StringList{"fc1.weigth"};
    if (which == 2) fields.lr_factors = {{"fc1.weigth", 2}};
    if (which == 3) fields.weight_decays = {{"fc1.weigth", 0}};
    try {
      make_groups(parameters(), fields);
      ADD_FAILURE() << "accepted " << which;
    } catch (const Error& e) {
      EXPECT_NE(e.message().find("`fc1.weigth` matches no parameter"), std::string::npos);
      EXPECT_NE(e.hint().find("`fc1.weight`"), std::string::npos) << e.hint();
    }
  }
}

TEST(Groups, RefuseWhatIsNoPatternAndNothingToTrain) {
  OptimizerFields fields;
  fields.freeze = {"("};
  EXPECT_THROW(make_groups(parameters(), fields), Error);
  fields.freeze = {"."};
  EXPECT_THROW(make_groups(parameters(), fields), Error);
}

TEST(Freeze, KeepsBitsGetsNoGradientAndNoState) {
  auto model = toy::mlp();
  Step step(model, FixedFields({{"optimizer.freeze", StringList{"^fc1\\."}}}), {});
  auto before = toy::copy(model->parameters());
  for (int i = 0; i < 3; ++i) step.take({toy::classes(8)});
  auto after = model->parameters();
  for (size_t i = 0; i < after.size(); ++i) {
    bool frozen = after[i].name.starts_with("fc1");
    EXPECT_EQ(at::equal(after[i].tensor, before[i].tensor), frozen) << after[i].name;
    EXPECT_EQ(after[i].tensor.requires_grad(), !frozen);
  }
  for (const auto& t : step.state()) EXPECT_EQ(t.name.find("fc1"), std::string::npos) << t.name;
  EXPECT_NE(step.describe().find("frozen: 2 tensors, 42 numbers"), std::string::npos)
      << step.describe();
}

}  // namespace
}  // namespace lehr::step
