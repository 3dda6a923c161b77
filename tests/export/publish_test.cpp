// From a live model to a folder, and back to answers: what is published is the model, and what is
// not the model is not published.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/safetensors.h"
#include "engine/export/golden.h"
#include "engine/export/trace.h"
#include "engine/export/verify.h"
#include "engine/export/wrapper.h"
#include "tests/export/toy.h"

namespace lehr::artefact {
namespace {

using namespace testing;

std::vector<int64_t> indices(int64_t count) {
  std::vector<int64_t> list;
  for (int64_t i = 0; i < count; ++i) list.push_back((i * 7) % 40);
  return list;
}

// the artefact's answers for `count` samples have the bits of the live model's
void expect_live_answers(const ExportRequest& r, const Artefact& artefact, data::Split split,
                         int64_t count) {
  const auto samples = indices(count);
  Batch batch = r.dataset->allocate(count);
  r.dataset->fill(split, samples.data(), 0, count, false, 0, 0, batch);
  const auto wanted = answers(r.loss, evaluate(*r.model, batch.inputs));
  const Prediction got = artefact.predict(r.dataset->raw(split, samples));
  EXPECT_TRUE(same_bits(got.scores, wanted.back())) << count;
  if (!answer_of(r.loss).is_class) return;
  ASSERT_EQ(static_cast<int64_t>(got.labels.size()), count);
  for (int64_t i = 0; i < count; ++i)
    EXPECT_EQ(got.labels[i], r.dataset->info().classes[wanted[0][i].item<int64_t>()]);
}

TEST(Export, WritesEveryFileAndNothingElse) {
  Scratch scratch;
  export_artefact(image_request(scratch.file("runs/a/artefact")));
  EXPECT_EQ(list_folder(scratch.file("runs/a/artefact")),
            (StringList{"MANIFEST.json", "golden.safetensors", "metrics.json", "model.pt",
                        "model.safetensors", "recipe.yaml", "statistics.json"}));
  EXPECT_EQ(list_folder(scratch.file("runs/a")), StringList{"artefact"});
  EXPECT_EQ(read(scratch.file("runs/a/artefact/recipe.yaml")), "model:\n  name: toy\n");
  auto manifest = nlohmann::json::parse(read(scratch.file("runs/a/artefact/MANIFEST.json")));
  EXPECT_EQ(manifest["facts"]["loss"], "cross_entropy");
  EXPECT_EQ(manifest["facts"]["origin"]["step"], 12);
  EXPECT_EQ(manifest["facts"]["signature"]["inputs"][0]["shape"], nlohmann::json({"N", 8, 8}));
  EXPECT_EQ(manifest["facts"]["signature"]["outputs"][1]["shape"], nlohmann::json({"N", 10}));
  EXPECT_EQ(manifest["files"].size(), 6u);
}

TEST(Export, ClassifierOfImagesAnswersWithTheLiveBitsAtAnyBatch) {
  Scratch scratch;
  for (int64_t channels : {1, 3}) {
    auto r =
        request(std::make_shared<ToyNet>(channels, 10), std::make_shared<ToyImages>(channels, 10),
                "cross_entropy", scratch.file(fmt::format("a{}", channels)));
    export_artefact(r);
    const Artefact artefact(r.output);
    EXPECT_TRUE(artefact.takes_images());
    EXPECT_EQ(artefact.classes(), r.dataset->info().classes);
    EXPECT_EQ(artefact.loss(), "cross_entropy");
    EXPECT_EQ(artefact.replay_golden(), 0);
    for (int64_t count : {0, 1, 2, 33}) expect_live_answers(r, artefact, data::Split::kTest, count);
  }
}

TEST(Export, OneLogitAnswersWithTwoProbabilities) {
  Scratch scratch;
  auto r = request(std::make_shared<ToyNet>(1, 1), std::make_shared<ToyImages>(1, 2),
                   "binary_cross_entropy", scratch.file("a"));
  export_artefact(r);
  const Artefact artefact(r.output);
  expect_live_answers(r, artefact, data::Split::kTest, 9);
  const auto p = artefact.predict(r.dataset->raw(data::Split::kTest, indices(9)));
  EXPECT_EQ(p.scores.sizes(), at::IntArrayRef({9, 2}));
  EXPECT_TRUE(at::allclose(p.scores.sum(1), at::ones({9})));
  for (int64_t i = 0; i < 9; ++i)
    EXPECT_EQ(p.labels[i], artefact.classes()[p.scores[i][1].item<float>() > 0.5f]);
}

TEST(Export, RegressorAnswersWithValues) {
  Scratch scratch;
  for (const char* loss : {"mse", "mae", "huber"}) {
    auto r = request(std::make_shared<ToyNet>(1, 2), std::make_shared<ToyImages>(1, 0, 2), loss,
                     scratch.file(loss));
    export_artefact(r);
    const Artefact artefact(r.output);
    EXPECT_TRUE(artefact.classes().empty());
    expect_live_answers(r, artefact, data::Split::kTest, 5);
  }
}

TEST(Export, TableTakesNumbersAndStringsAsStored) {
  Scratch scratch;
  auto r = request(std::make_shared<ToyTableNet>(3), std::make_shared<ToyTable>(3), "cross_entropy",
                   scratch.file("a"));
  export_artefact(r);
  const Artefact artefact(r.output);
  EXPECT_FALSE(artefact.takes_images());
  EXPECT_EQ(artefact.number_columns(), (StringList{"age", "height"}));
  EXPECT_EQ(artefact.string_columns(), StringList{"town"});
  for (int64_t count : {0, 1, 40})
    expect_live_answers(r, artefact, data::Split::kValidation, count);
  EXPECT_EQ(artefact.replay_golden(), 0);
}

TEST(Export, RegressorOfATableWorksToo) {
  Scratch scratch;
  auto r = request(std::make_shared<ToyTableNet>(2), std::make_shared<ToyTable>(0), "mse",
                   scratch.file("a"));
  export_artefact(r);
  expect_live_answers(r, Artefact(r.output), data::Split::kValidation, 11);
}

TEST(Export, WeightsAreSafetensorsByParameterName) {
  Scratch scratch;
  auto r = image_request(scratch.file("a"));
  export_artefact(r);
  SafetensorsFile file(scratch.file("a/model.safetensors"));
  for (const auto& [name, tensor] : r.model->parameters()) {
    const TensorView* view = file.find(name);
    ASSERT_NE(view, nullptr) << name;
    EXPECT_EQ(std::memcmp(view->data, tensor.data_ptr(), view->bytes), 0) << name;
  }
  EXPECT_NE(file.find("conv.mean"), nullptr);
}

TEST(Export, TwiceTheSameModelGivesTheSameFiles) {
  Scratch scratch;
  export_artefact(image_request(scratch.file("a")));
  export_artefact(image_request(scratch.file("b")));
  for (const char* name : {"model.pt", "model.safetensors", "golden.safetensors", "MANIFEST.json"})
    EXPECT_EQ(read(scratch.file("a/") + name), read(scratch.file("b/") + name)) << name;
}

TEST(Export, RefusesToOverwrite) {
  Scratch scratch;
  export_artefact(image_request(scratch.file("a")));
  const std::string before = read(scratch.file("a/MANIFEST.json"));
  refused(Code::kUsage, [&] { export_artefact(image_request(scratch.file("a/"))); });
  EXPECT_EQ(read(scratch.file("a/MANIFEST.json")), before);
}

TEST(Export, ClearsWhatKilledExportsLeft) {
  Scratch scratch;
  make_folders(scratch.file("a.tmp-0123456789abcdef"));
  export_artefact(image_request(scratch.file("a")));
  EXPECT_EQ(list_folder(scratch.path()), StringList{"a"});
}

TEST(Export, WorksWithFewerSamplesThanItCompares) {
  Scratch scratch;
  auto r = request(std::make_shared<ToyNet>(1, 10), std::make_shared<ToyImages>(1, 10, 0, 2),
                   "cross_entropy", scratch.file("a"));
  export_artefact(r);
  EXPECT_EQ(Artefact(r.output).replay_golden(), 0);
}

TEST(Export, TritonLayoutIsAModelOfARepository) {
  Scratch scratch;
  auto r = image_request(scratch.file("digits"));
  r.layout = "triton";
  export_artefact(r);
  EXPECT_TRUE(file_exists(scratch.file("digits/1/model.pt")));
  const std::string config = read(scratch.file("digits/config.pbtxt"));
  EXPECT_NE(config.find("name: \"digits\"\nplatform: \"pytorch_libtorch\""), std::string::npos)
      << config;
  EXPECT_NE(config.find("{ name: \"images__0\" data_type: TYPE_UINT8 dims: [ 8, 8 ] }"),
            std::string::npos)
      << config;
  EXPECT_NE(config.find("{ name: \"probability__1\" data_type: TYPE_FP32 dims: [ 10 ] }"),
            std::string::npos)
      << config;
  expect_live_answers(r, Artefact(r.output), data::Split::kTest, 5);
  r = request(std::make_shared<ToyTableNet>(3), std::make_shared<ToyTable>(3), "cross_entropy",
              scratch.file("t"));
  r.layout = "triton";
  refused(Code::kRecipe, [&] { export_artefact(r); });
}

// Sabotage: each of these models is another one than its trace.
class Sabotage : public ::testing::Test {
 protected:
  std::string refuse(const ExportRequest& r) {
    const std::string message = refused(Code::kCheckpoint, [&] { export_artefact(r); });
    EXPECT_EQ(list_folder(scratch.path()), StringList{}) << "something was left behind";
    return message;
  }
  Scratch scratch;
};

TEST_F(Sabotage, AFixedBatchIsNamedAfterItsLayer) {
  const auto message = refuse(image_request(scratch.file("a"), Fault::kFixedBatch));
  EXPECT_NE(message.find("batch of 1"), std::string::npos) << message;
  EXPECT_NE(message.find("after layer `conv`"), std::string::npos) << message;
}

TEST_F(Sabotage, ABranchIsNamedAfterItsLayer) {
  const auto message = refuse(image_request(scratch.file("a"), Fault::kBranch));
  EXPECT_NE(message.find("batch of 3"), std::string::npos) << message;
  EXPECT_NE(message.find("head.fc"), std::string::npos) << message;
}

TEST_F(Sabotage, AConstantThatMovesIsNamedAfterItsLayer) {
  const auto message = refuse(image_request(scratch.file("a"), Fault::kDrift));
  EXPECT_NE(message.find("after layer `head.fc1` (aten::mul)"), std::string::npos) << message;
}

TEST_F(Sabotage, RandomOperatorsAreNotAllowed) {
  const auto message = refuse(image_request(scratch.file("a"), Fault::kRandom));
  EXPECT_NE(message.find("bernoulli"), std::string::npos) << message;
}

TEST_F(Sabotage, PreprocessingOfAnotherResultIsNamed) {
  struct Wrong : ToyImages {
    Wrong() : ToyImages(1, 10) {}
    data::Preprocessing preprocessing() const override {
      auto p = ToyImages::preprocessing();
      p.buffers[1].second = p.buffers[1].second + 1e-6;
      return p;
    }
  };
  auto r = image_request(scratch.file("a"));
  r.dataset = std::make_shared<Wrong>();
  const auto message = refuse(r);
  EXPECT_NE(message.find("preprocessing differs"), std::string::npos) << message;
}

TEST_F(Sabotage, SourceThatDoesNotCompileIsOurFault) {
  struct Broken : ToyImages {
    Broken() : ToyImages(1, 10) {}
    data::Preprocessing preprocessing() const override {
      auto p = ToyImages::preprocessing();
      p.source =
          "\ndef preprocess(self, images: Tensor) -> Tensor:\n    return images.no_such_thing()\n";
      return p;
    }
  };
  auto r = image_request(scratch.file("a"));
  r.dataset = std::make_shared<Broken>();
  const auto message = refused(Code::kInternal, [&] { export_artefact(r); });
  EXPECT_NE(message.find("no_such_thing"), std::string::npos) << message;
  EXPECT_EQ(list_folder(scratch.path()), StringList{});
}

// LibTorch's writer ends its file in a destructor.
TEST_F(Sabotage, WhatCannotBeWrittenIsAnError) {
  const auto r = image_request(scratch.file("a"));
  const Script core = trace(*r.model, draw(*r.dataset, 2).inputs);
  for (int64_t fails_at : {0, 1, 3}) {
    int64_t writes = 0;
    EXPECT_THROW(core.save([&](const void*, size_t) {
      if (writes++ >= fails_at) throw Error(Code::kData, "no space");
    }),
                 Error);
    EXPECT_EQ(writes, fails_at + 1);
  }
}

TEST_F(Sabotage, AWeightThatIsNotTheModelsIsNamed) {
  auto r = image_request(scratch.file("a"));
  const Script script = wrap(trace(*r.model, draw(*r.dataset, 2).inputs),
                             surroundings(r.dataset->info(), r.dataset->preprocessing(), r.loss));
  const Script loaded = load_script(script.archive());
  EXPECT_NO_THROW(verify(loaded, *r.model, *r.dataset, r.loss, "here"));
  {
    at::NoGradGuard no_grad;
    for (auto& [name, tensor] : r.model->parameters())
      if (name == "head.fc1.bias") tensor += 1e-5;
  }
  const auto message =
      refused(Code::kCheckpoint, [&] { verify(loaded, *r.model, *r.dataset, r.loss, "here"); });
  EXPECT_NE(message.find("`head.fc1.bias`"), std::string::npos) << message;
  // and running both finds the same layer without looking at weights
  const auto place = first_difference(loaded, *r.model, draw(*r.dataset, 3).inputs);
  EXPECT_NE(place.find("in layer `head.fc1`"), std::string::npos) << place;
}

TEST(Golden, ReplayMeasuresTheDifference) {
  Scratch scratch;
  auto r = image_request(scratch.file("a"));
  export_artefact(r);
  Golden golden = read_golden(scratch.file("a/golden.safetensors"));
  const Script script = load_script(read(scratch.file("a/model.pt")));
  EXPECT_EQ(replay(script, golden), 0);
  golden.outputs[1] = golden.outputs[1] + 5e-6;
  EXPECT_GT(replay(script, golden), 0.1);
  EXPECT_LE(replay(script, golden), 1);
  golden.outputs[1] = golden.outputs[1] + 1e-3;
  EXPECT_GT(replay(script, golden), 1);
  golden = read_golden(scratch.file("a/golden.safetensors"));
  golden.outputs[0] = (golden.outputs[0] + 1) % 10;  // the right probabilities, other labels
  EXPECT_GT(replay(script, golden), 1);
  golden.inputs.images = golden.inputs.images.to(at::kFloat);  // refused, so not answered
  EXPECT_GT(replay(script, golden), 1);
}

}  // namespace
}  // namespace lehr::artefact
