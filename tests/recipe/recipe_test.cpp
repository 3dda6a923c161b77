// Reading, types, inheritance, references, overrides, conditions, paths.
#include "engine/recipe/recipe.h"

#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "tests/recipe/sample.h"
#include "tests/recipe/support.h"

namespace lehr::recipe {
namespace {

using sample::sections;

Recipe read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return Recipe::parse(text, "r.yaml", overrides, sections());
}

// with the one required field
Recipe with(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read("data: {train: a.csv}\n" + text, overrides);
}

TEST(Recipe, FillsPlainStructsWithDefaultsAndValues) {
  Recipe r = with("optimizer: {lr: 0.5}\n");
  auto optimizer = r.get<sample::Optimizer>();
  EXPECT_EQ(optimizer.lr, 0.5);
  EXPECT_EQ(optimizer.name, "adamw");
  EXPECT_EQ(r.get<sample::Data>().train, "a.csv");
  EXPECT_FALSE(r.get<sample::Data>().limit.has_value());
}

TEST(Recipe, ReadsAScalarByTheTypeOfItsField) {
  Recipe r = with(
      "model: {init_from: 'no'}\n"
      "optimizer: {lr: 1e-4, betas: [.5, 1], freeze: [no, 012, ~, 1e3, true]}\n"
      "training: {seed: 012, deterministic: true, max_grad_norm: ~, max_time: 30min}\n"
      "checkpoint: {interval: 2ep, folder: off}\n"
      "loss: {class_weights: {no: 1, 007: .5, ~: +2e0}, note: ~}\n");
  auto optimizer = r.get<sample::Optimizer>();
  EXPECT_EQ(optimizer.lr, 1e-4);
  EXPECT_EQ(optimizer.betas, (FloatList{0.5, 1}));
  EXPECT_EQ(optimizer.freeze, (StringList{"no", "012", "~", "1e3", "true"}));
  auto training = r.get<sample::Training>();
  EXPECT_EQ(training.seed, 12);
  EXPECT_TRUE(training.deterministic);
  EXPECT_FALSE(training.max_grad_norm.has_value());
  EXPECT_EQ(training.max_time, (Duration{1800, Duration::Unit::kSeconds}));
  EXPECT_EQ(r.get<sample::Checkpoint>().interval, (Duration{2, Duration::Unit::kEpochs}));
  EXPECT_EQ(r.get<sample::Loss>().class_weights, (FloatMap{{"no", 1}, {"007", .5}, {"~", 2}}));
  EXPECT_FALSE(r.get<sample::Loss>().note.has_value());
}

TEST(Recipe, KeepsQuotedNullAsText) {
  EXPECT_EQ(with("loss: {note: 'null'}\n").get<sample::Loss>().note, "null");
  EXPECT_EQ(with("loss: {note: \"\"}\n").get<sample::Loss>().note, "");
  EXPECT_FALSE(with("loss:\n  note:\n").get<sample::Loss>().note.has_value());
  EXPECT_EQ(with("loss:\n  note: |\n    two\n    lines\n").get<sample::Loss>().note,
            "two\nlines\n");
}

TEST(Recipe, ReadsNestedMappingsForDottedNames) {
  Recipe r = read("data:\n  train: x\n  augment:\n    crop: {pad: 4}\n    flip: false\n");
  auto data = r.get<sample::Data>();
  EXPECT_EQ(data.pad, 4);
  EXPECT_FALSE(data.flip);
  EXPECT_EQ(r.where("data.augment.crop.pad"), "r.yaml:4:12");
}

TEST(Recipe, KnowsWhereEveryValueCameFrom) {
  Recipe r = with("optimizer:\n  lr: 1\n", {"training.seed=3"});
  EXPECT_EQ(r.where("optimizer.lr"), "r.yaml:3:3");
  EXPECT_EQ(r.where("training.seed"), "--set training.seed");
  EXPECT_EQ(r.where("optimizer.name"), "r.yaml:2:1");  // of its section
  EXPECT_EQ(r.where("loss.note"), "r.yaml");
  EXPECT_TRUE(r.was_set("training.seed"));
  EXPECT_FALSE(r.was_set("optimizer.name"));
}

TEST(Recipe, AllowsEmptySectionsAndAliases) {
  Recipe r = with(
      "training:\noptimizer: {betas: &b [0.1, 0.2], freeze: &f [x]}\nloss: {note: &n hi}\n"
      "model: {init_from: *n}\n");
  EXPECT_EQ(r.get<sample::Training>().seed, 0);
  EXPECT_EQ(r.get<sample::Model>().init_from, "hi");
}

TEST(Recipe, AcceptsAByteOrderMarkAndWindowsLines) {
  EXPECT_EQ(read("\xEF\xBB\xBF"
                 "data:\r\n  train: x\r\n")
                .where("data.train"),
            "r.yaml:2:3");
}

TEST(Recipe, GivesAFieldTheTypeAndDefaultOfItsCondition) {
  Recipe mlp = with("");
  EXPECT_EQ(mlp.get<sample::Mlp>().hidden, IntList{128});
  EXPECT_EQ(std::get<IntList>(mlp.value("model.hidden")), IntList{128});
  Recipe cnn = with("model: {name: cnn, dropout: 0.5}\n");
  EXPECT_EQ(cnn.get<sample::Cnn>().hidden, 32);
  EXPECT_EQ(cnn.get<sample::Cnn>().dropout, 0.5);
  // the struct of the other model keeps its own defaults
  EXPECT_EQ(cnn.get<sample::Mlp>().dropout, 0);
  Recipe logistic = with("model: {name: logistic}\n");
  EXPECT_THROW(logistic.value("model.hidden"), Error);
}

TEST(Recipe, PutsReferencesIn) {
  Recipe r = with(
      "training: {seed: 7, micro_batch_size: 8, global_batch_size: "
      "\"${training.micro_batch_size}\"}\n"
      "loss: {note: \"${model.name}-${training.seed}-$${x}-${optimizer.lr}\"}\n"
      "optimizer:\n"
      "  freeze: [\"${model.name}.*\", '${loss.note}']\n"
      "checkpoint:\n"
      "  interval: ${training.seed}ep\n");
  EXPECT_EQ(r.get<sample::Training>().global_batch_size, 8);
  EXPECT_EQ(r.get<sample::Loss>().note, "mlp-7-${x}-0.001");
  EXPECT_EQ(r.get<sample::Optimizer>().freeze, (StringList{"mlp.*", "mlp-7-${x}-0.001"}));
  EXPECT_EQ(r.get<sample::Checkpoint>().interval, (Duration{7, Duration::Unit::kEpochs}));
}

TEST(Recipe, PutsWholeListsInAndKeepsTextText) {
  Recipe r = read(
      "data: {train: x, extra: '${optimizer.freeze}'}\n"
      "optimizer: {freeze: [a, b]}\n"
      "loss: {note: '${model.init_from}'}\n"
      "model: {init_from: 'null'}\n");
  EXPECT_EQ(r.get<sample::Data>().extra, (StringList{"a", "b"}));
  EXPECT_EQ(r.get<sample::Loss>().note, "null");
}

TEST(Recipe, LaysOverridesOnTheFileInOrder) {
  Recipe r = with("optimizer: {lr: 1, name: sgd}\n",
                  {"optimizer.lr=2", "optimizer.lr=3e-4", "optimizer.freeze=[a, 'b=c']",
                   "data.augment.crop.pad=0", "loss.class_weights={a: 1}", "loss.note=\"null\"",
                   "model.name=cnn", "training.micro_batch_size=${training.global_batch_size}",
                   "data.augment={flip: false}"});
  auto optimizer = r.get<sample::Optimizer>();
  EXPECT_EQ(optimizer.lr, 3e-4);
  EXPECT_EQ(optimizer.name, "sgd");
  EXPECT_EQ(optimizer.freeze, (StringList{"a", "b=c"}));
  EXPECT_EQ(r.get<sample::Data>().pad, 0);
  EXPECT_FALSE(r.get<sample::Data>().flip);
  EXPECT_EQ(r.get<sample::Loss>().class_weights, (FloatMap{{"a", 1}}));
  EXPECT_EQ(r.get<sample::Loss>().note, "null");
  EXPECT_EQ(r.get<sample::Model>().name, "cnn");
}

TEST(Recipe, MergesWhatItExtendsAndTheLaterWins) {
  TemporaryFolder folder;
  folder.write("bases/deepest.yaml",
               "optimizer: {name: sgd, lr: 1, freeze: [a]}\ntraining: {seed: 1}\n");
  folder.write(
      "bases/base.yaml",
      "extends: deepest.yaml\noptimizer: {lr: 2}\ndata: {train: x, augment: {flip: false}}\n");
  auto path = folder.write("r.yaml",
                           "extends: bases/base.yaml\noptimizer: {freeze: []}\n"
                           "training:\ndata:\n  augment: {crop: {pad: 1}}\n");
  Recipe r = Recipe::load(path, {}, sections());
  auto optimizer = r.get<sample::Optimizer>();
  EXPECT_EQ(optimizer.name, "sgd");
  EXPECT_EQ(optimizer.lr, 2);
  EXPECT_TRUE(optimizer.freeze.empty());
  EXPECT_EQ(r.get<sample::Training>().seed, 1);
  EXPECT_FALSE(r.get<sample::Data>().flip);
  EXPECT_EQ(r.get<sample::Data>().pad, 1);
  EXPECT_EQ(r.where("optimizer.lr"), folder / "bases/base.yaml:2:13");
  EXPECT_EQ(r.where("optimizer.name"), folder / "bases/deepest.yaml:1:13");
  EXPECT_EQ(r.stem(), "r");
  EXPECT_EQ(r.folder(), folder.path());
}

TEST(Recipe, LetsABaseExtendItsParentInsideTheFolder) {
  TemporaryFolder folder;
  folder.write("common.yaml", "data: {train: x}\n");
  folder.write("bases/base.yaml", "extends: ../common.yaml\n");
  auto path = folder.write("r.yaml", "extends: bases/base.yaml\n");
  EXPECT_EQ(Recipe::load(path, {}, sections()).where("data.train"), folder / "common.yaml:1:8");
}

TEST(Recipe, ResolvesPathsAgainstTheFileTheyAreWrittenIn) {
  TemporaryFolder folder;
  folder.write("bases/base.yaml",
               "data: {train: ../x.csv, extra: [y.csv, /abs/z.csv]}\ncheckpoint: {folder: ckpt}\n");
  auto path =
      folder.write("r.yaml", "extends: bases/base.yaml\nmodel: {init_from: '${data.train}.w'}\n");
  Recipe r = Recipe::load(path, {}, sections());
  EXPECT_EQ(r.get<sample::Data>().train, folder / "x.csv");
  EXPECT_EQ(r.get<sample::Data>().extra, (StringList{folder / "bases/y.csv", "/abs/z.csv"}));
  EXPECT_EQ(r.get<sample::Checkpoint>().folder, folder / "bases/ckpt");
  EXPECT_EQ(r.get<sample::Model>().init_from, folder / "x.csv.w");
  // written so that they hold beside the recipe
  EXPECT_NE(r.resolved().find("train: x.csv\n  extra: [bases/y.csv, /abs/z.csv]\n"),
            std::string::npos);
  // and read from anywhere else, when told where that was
  Recipe again = Recipe::parse(r.resolved(), "elsewhere/recipe.yaml", {}, sections(), r.folder());
  EXPECT_EQ(again.hash(), r.hash());
  EXPECT_EQ(again.get<sample::Data>().extra, r.get<sample::Data>().extra);
}

TEST(Recipe, LeavesDefaultAndOverriddenPathsToTheWorkingDirectory) {
  TemporaryFolder folder;
  auto path = folder.write("r.yaml", "data: {train: x}\ncheckpoint: {folder: checkpoints}\n");
  Recipe r = Recipe::load(path, {"model.init_from=w.safetensors"}, sections());
  EXPECT_EQ(r.get<sample::Checkpoint>().folder, "checkpoints");
  EXPECT_EQ(r.get<sample::Model>().init_from, "w.safetensors");
  // the same text as the default, but beside the recipe
  path = folder.write("s.yaml", "data: {train: x}\ncheckpoint: {folder: ./checkpoints}\n");
  EXPECT_EQ(Recipe::load(path, {}, sections()).get<sample::Checkpoint>().folder,
            folder / "checkpoints");
}

TEST(Recipe, NeverWritesAPathThatWouldReadBackAsTheDefault) {
  TemporaryFolder folder;
  folder.write("sub/base.yaml", "data: {train: x}\ncheckpoint: {folder: ../checkpoints}\n");
  auto path = folder.write("r.yaml", "extends: sub/base.yaml\n");
  Recipe r = Recipe::load(path, {}, sections());
  EXPECT_EQ(r.get<sample::Checkpoint>().folder, folder / "checkpoints");
  EXPECT_NE(r.resolved().find("folder: ./checkpoints\n"), std::string::npos);
}

TEST(Recipe, ADefaultPathInAReferenceStaysWithTheWorkingDirectory) {
  TemporaryFolder folder;
  auto path = folder.write("r.yaml", "data:\n  train: ${checkpoint.folder}/x\n");
  Recipe r = Recipe::load(path, {}, sections());
  EXPECT_EQ(r.get<sample::Data>().train, "checkpoints/x");
  Recipe again = Recipe::parse(r.resolved(), "r.yaml", {}, sections(), r.folder());
  EXPECT_EQ(again.get<sample::Data>().train, std::filesystem::absolute("checkpoints/x"));
}

TEST(Recipe, NamesTheFieldsThatDiffer) {
  Recipe a = with("optimizer: {lr: 0.1}\ncheckpoint: {interval: 5}\n");
  Recipe b = with("optimizer: {lr: 0.2}\ncheckpoint: {interval: 6}\nmodel: {name: logistic}\n");
  auto texts = [](const std::vector<Difference>& list, bool exact_only) {
    StringList lines;
    for (const auto& d : list)
      if (d.exact || !exact_only) lines.push_back(d.text());
    return lines;
  };
  EXPECT_EQ(texts(a.differences(b), false),
            (StringList{"model.name: mlp -> logistic", "model.hidden: [128] -> (none)",
                        "model.dropout: 0 -> (none)", "optimizer.lr: 0.1 -> 0.2",
                        "checkpoint.interval: 5 -> 6"}));
  EXPECT_EQ(texts(a.differences(b), true).size(), 4);
  EXPECT_EQ(texts(b.differences(a), true)[2], "model.hidden: (none) -> [128]");
  EXPECT_TRUE(a.differences(a).empty());
  EXPECT_EQ(a.paths("data"), (StringList{"a.csv"}));
}

TEST(Recipe, StartsWithAByteOrderMarkWhereAnEditorWroteOne) {
  const std::string text = "data: {train: a.csv}\noptimizer: {lr: 0.5}\n";
  EXPECT_EQ(read("\xEF\xBB\xBF" + text).hash(), read(text).hash());
  EXPECT_EQ(mistakes_of([] {
              read(
                  "\xEF\xBB\xBF"
                  "data: {tran: x, train: x}\n");
            }),
            "r.yaml:1:8: data.tran: unknown key; did you mean data.train?");
}

TEST(Recipe, ReadsWhatAnotherReleaseStored) {
  const std::string base = "data: {train: a.csv}\n";
  auto stored = [&](const std::string& more, const std::vector<std::string>& overrides = {}) {
    return Recipe::parse_stored(base + more, "run/recipe.yaml", overrides, sections());
  };
  const Recipe now = stored("checkpoint: {report: 7, interval: 3}\n");
  for (const char* then : {"training: {report_every: 7}\ncheckpoint: {interval: 3}\n",
                           "checkpoint: {report: {every: 7}, interval: 3}\n"})
    EXPECT_EQ(stored(then).hash(), now.hash()) << then;
  const Recipe grey = stored("checkpoint: {report: 7, interval: 3, colour: red}\n");
  EXPECT_EQ(grey.hash(), now.hash());
  EXPECT_EQ(grey.left_out(), (StringList{"checkpoint.colour (since 0.2: everything is grey)"}));
  EXPECT_TRUE(now.left_out().empty());
  // what earlier releases took, and this one would not
  EXPECT_EQ(stored("training: {max_time: 500}\ncheckpoint: {run: ../x}\n")
                .get<sample::Training>()
                .max_time->value,
            500);
  // an override is of today
  EXPECT_EQ(stored("training: {report_every: 7}\n", {"checkpoint.report=8"})
                .get<sample::Checkpoint>()
                .report,
            Duration{8});
  auto refusal = [&](const std::string& more, const std::vector<std::string>& overrides = {}) {
    try {
      stored(more, overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kCheckpoint);
      return std::string(error.what());
    }
    return std::string("read");
  };
  EXPECT_EQ(refusal("optimizer: {lr_lamb: 1}\n"),
            "run/recipe.yaml:2:13: optimizer.lr_lamb: unknown key; a newer release of Lehr wrote "
            "this: read it with that one");
  EXPECT_EQ(refusal("serve: {port: 1}\n"),
            "run/recipe.yaml:2:1: serve: unknown section; a newer release of Lehr wrote this: read "
            "it with that one");
  EXPECT_EQ(refusal("", {"training.max_time=500"}).find("--set training.max_time: must be a time"),
            0);
  EXPECT_EQ(refusal("", {"training.report_every=5"}),
            "--set training.report_every: unknown key; it is called checkpoint.report now");
}

TEST(Recipe, PlacesTheErrorOfARoom) {
  const Recipe r = with("optimizer: {lr: 0.5}\n", {"training.seed=3"});
  auto placed = [&](const std::string& key, Code code = Code::kRecipe) {
    return std::string(r.placed(Error(code, "is odd", key, "do this")).what());
  };
  EXPECT_EQ(placed("optimizer.lr"), "r.yaml:2:13: optimizer.lr: is odd\n  do this");
  EXPECT_EQ(placed("optimizer.betas"), "r.yaml:2:1: optimizer.betas: is odd\n  do this");
  EXPECT_EQ(placed("loss.note"), "r.yaml: loss.note: is odd\n  do this");
  EXPECT_EQ(placed("training.seed"), "--set training.seed: is odd\n  do this");
  EXPECT_EQ(placed("some/file"), "some/file: is odd\n  do this");
  EXPECT_EQ(placed("optimizer.lr", Code::kData), "optimizer.lr: is odd\n  do this");
}

TEST(Recipe, MergesSectionsOfTheSameName) {
  auto merged = merge(sections());
  ASSERT_EQ(merged.size(), 6);
  EXPECT_EQ(merged[0].name, "model");
  EXPECT_EQ(merged[0].fields.size(), 7);
  EXPECT_EQ(merged[0].text, "What is computed.");
}

struct Broken {
  int64_t low = -1;
  Duration every{1};
  std::string a = "x";
};

TEST(Recipe, RefusesDeclarationsThatContradictThemselves) {
  auto fault = [](auto declare) {
    Declare<Broken> d("broken", "");
    declare(d);
    try {
      Recipe::parse("{}", "r.yaml", {}, {d.section()});
    } catch (const Error& error) {
      return error.code() == Code::kInternal ? error.message() : "another code";
    }
    return std::string();
  };
  EXPECT_EQ(fault([](auto& d) { d.field("low", &Broken::low, "").at_least(0); }),
            "declaration of broken.low: its default -1 is none of its values");
  EXPECT_EQ(fault([](auto& d) { d.field("every", &Broken::every, ""); }),
            "declaration of broken.every: a duration says its units, and only a duration");
  EXPECT_EQ(fault([](auto& d) { d.field("low", &Broken::low, "").units(kTime); }),
            "declaration of broken.low: a duration says its units, and only a duration");
  EXPECT_EQ(fault([](auto& d) { d.field("every", &Broken::every, "").units(kTime); }),
            "declaration of broken.every: its default 1 is none of its values");
  EXPECT_EQ(fault([](auto& d) { d.field("a", &Broken::a, ""), d.gone("a", "since 0.2"); }),
            "declaration of broken.a: is gone and declared");
  EXPECT_EQ(fault([](auto& d) { d.field("a", &Broken::a, "").choices({"y"}); }),
            "declaration of broken.a: its default x is none of its values");
  EXPECT_EQ(fault([](auto& d) { d.field("a", &Broken::a, "").when("b", {"y"}); }),
            "declaration of broken.a: its condition b is not declared in the section");
  EXPECT_EQ(fault([](auto& d) {
              d.field("a", &Broken::a, "");
              d.field("a", &Broken::low, "");
            }),
            "declaration of broken.a: is declared twice with another type or default");
  EXPECT_EQ(fault([](auto& d) {
              d.field("a", &Broken::a, "");
              d.field("a.b", &Broken::low, "");
            }),
            "declaration of broken.a: a.b lies below it");
}

TEST(Recipe, RefusesAStructThatWasNotDeclared) {
  Recipe r = Recipe::parse("{}", "r.yaml", {}, {sample::Training::section()});
  EXPECT_THROW(r.get<sample::Optimizer>(), Error);
}

}  // namespace
}  // namespace lehr::recipe
