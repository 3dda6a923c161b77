// The schema and the reference page say what the reader does; a third party's validator is the
// judge.
#include <gtest/gtest.h>

#include "engine/recipe/recipe.h"
#include "tests/recipe/bad_recipes.h"
#include "tests/recipe/random_recipe.h"
#include "tests/recipe/sample.h"
#include "tests/recipe/support.h"
#include "tests/recipe/yaml_json.h"

namespace lehr::recipe {
namespace {

using nlohmann::json;

json make_case(const std::string& name, bool valid, const std::string& yaml) {
  return {{"name", name}, {"valid", valid}, {"document", yaml_as_json(yaml)}};
}

TEST(Schema, AcceptsGoodRecipesAndRefusesBadOnesInAThirdPartyValidator) {
  std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
  if (!std::filesystem::exists(python)) {
    GTEST_SKIP() << "SKIPPED: " << python << " is not there (scripts/setup makes it)";
  }
  auto sections = sample::sections();
  json cases = json::array();
  // random recipes as written and as resolved
  for (unsigned seed = 0; seed < 100; ++seed) {
    RandomRecipe random(seed);
    random.make(merge(sections));
    auto name = "random " + std::to_string(seed);
    cases.push_back(make_case(name, true, random.text));
    auto resolved = Recipe::parse(random.text, "r.yaml", {}, sections).resolved();
    cases.push_back(make_case(name + " resolved", true, resolved));
  }
  for (const std::string good :
       {"{}", "extends: base.yaml", "extends: base.yaml\nmodel:\n  hidden: 4\n",
        "model: {hidden: [4, 5], name: mlp}", "training:\n", "data: {augment: }",
        "training: {seed: \"${data.limit}\"}\nmodel:\n  name: ${loss.note}",
        "optimizer: {betas: [0.5, \"${optimizer.lr}\"], freeze: \"${data.extra}\", lr: 1e-4}",
        "loss: {note: 12, class_weights: {a: 1, b: \"${optimizer.lr}\"}}",
        "checkpoint: {interval: 2 ep}\ntraining: {max_time: 1.5 h}", "checkpoint: {interval: 500}",
        "checkpoint: {interval: 1e9tok, report: 2ep, drops: [1, 2ep, 1e6 tokens]}",
        "checkpoint: {run: exp/lr1e-3, file: 12}", "checkpoint: {run: \"\"}",
        "data: {limit: ~, train: true}"}) {
    cases.push_back(make_case(good, true, good));
  }
  for (const std::string bad : {"[]",
                                "model: cnn",
                                "model: {hidden: x}",
                                "model: {hidden: [0]}",
                                "model: {name: resnet}",
                                "optimizer: {lr: 0}",
                                "optimizer: {lr: fast}",
                                "optimizer: {betas: 0.5}",
                                "optimizer: {betas: [0.5, 2]}",
                                "training: {seed: 1.5}",
                                "training: {seed: -1}",
                                "training: {seed: ~}",
                                "training: {deterministic: yes}",
                                "data: {augment: {flipp: true}}",
                                "data: {augment: {crop: {pad: -1}}}",
                                "data: {augment: true}",
                                "data: {limit: 0}",
                                "loss: {class_weights: {a: x}}",
                                "loss: {class_weights: [1]}",
                                "extends: [a.yaml]",
                                "checkpoint: {interval: 5 parsecs}",
                                "checkpoint: {interval: -1}",
                                "training: {max_time: 500}",
                                "training: {max_time: 2ep}",
                                "checkpoint: {report: 30s}",
                                "checkpoint: {drops: [1, 30s]}",
                                "checkpoint: {run: ../up}",
                                "checkpoint: {run: a//b}",
                                "checkpoint: {file: a/b}",
                                "checkpoint: {file: \"\"}",
                                "checkpoint: {file: -x}",
                                "optimizer: {lr: $optimizer.lr}"}) {
    cases.push_back(make_case(bad, false, bad));
  }
  // every unknown key that the reader refuses
  int unknown = 0;
  for (const auto& bad : bad_recipes()) {
    if (bad.mistakes.find("unknown") == std::string::npos || !bad.overrides.empty() ||
        bad.mistakes.find("refers to") != std::string::npos ||
        bad.mistakes.find("alias") != std::string::npos) {
      continue;
    }
    cases.push_back(make_case(bad.name, false, bad.text));
    ++unknown;
  }
  EXPECT_GE(unknown, 18);

  TemporaryFolder folder;
  auto schema = folder.write("schema.json", json_schema(sections));
  auto list = folder.write("cases.json", cases.dump());
  std::string command = python + " " LEHR_SOURCE_DIR "/tests/recipe/validate.py " + schema + " " +
                        list + " > " + (folder / "out.txt") + " 2>&1";
  int code = std::system(command.c_str());
  std::ifstream out(folder / "out.txt");
  EXPECT_EQ(code, 0) << std::string(std::istreambuf_iterator<char>(out), {});
}

TEST(Schema, DescribesEveryField) {
  auto schema = json::parse(json_schema(sample::sections()));
  const auto& lr = schema["properties"]["optimizer"]["properties"]["lr"];
  EXPECT_EQ(lr["description"], "Step size after warm-up.");
  EXPECT_EQ(lr["default"], 0.001);
  EXPECT_EQ(lr["anyOf"][0], (json{{"type", "number"}, {"exclusiveMinimum", 0.0}}));
  const auto& pad = schema["properties"]["data"]["properties"]["augment"]["properties"]["crop"]
                          ["properties"]["pad"];
  EXPECT_EQ(pad["description"], "Border around an image. Unit: pixels.");
  // declared twice: either of them
  const auto& hidden = schema["properties"]["model"]["properties"]["hidden"];
  ASSERT_EQ(hidden["anyOf"].size(), 2);
  EXPECT_EQ(hidden["anyOf"][0]["description"], "Widths of the hidden layers. Only with name mlp.");
  EXPECT_EQ(hidden["anyOf"][1]["default"], 32);
}

TEST(Reference, HasARowForEveryField) {
  auto page = reference(sample::sections());
  for (const std::string row :
       {"## optimizer\n\nHow the weights move.\n\n",
        "| `lr` | a number | `0.001` | above 0 |  | Step size after warm-up. |  |\n",
        "| `name` | text | `adamw` | `adamw`, `sgd` |  | The rule. |  |\n",
        "| `train` | a path | **required** |  |  | The training file. |  |\n",
        "| `limit` | a whole number, or `null` | `null` | at least 1 |  | Use only so many "
        "samples. | "
        "free |\n",
        "| `augment.crop.pad` | a whole number | `2` | at least 0 | pixels | Border around an "
        "image. |  "
        "|\n",
        "| `hidden` | a list of whole numbers | `[128]` | at least 1 |  | Widths of the hidden "
        "layers. "
        "Only with `name` `mlp`. |  |\n",
        "| `hidden` | a whole number | `32` | at least 1 | channels | Channels. Only with `name` "
        "`cnn`. "
        "|  |\n",
        "| `report` | a duration | `10` |  | steps, epochs | Between two reports. |  |\n",
        "| `run` | text | `\"\"` | a plain name, or names with / between |  | Name of the run. |  "
        "|\n",
        "| `note` | text, or `null` | `null` |  |  | A remark \\| for people. |  |\n"}) {
    EXPECT_NE(page.find(row), std::string::npos) << row << "\n" << page;
  }
}

}  // namespace
}  // namespace lehr::recipe
