// What a user does with an artefact: stock PyTorch in Python loads it, with nothing of ours
// installed.
#include <nlohmann/json.hpp>

#include "tests/export/toy_text.h"

namespace lehr::artefact {
namespace {

using namespace testing;
using nlohmann::json;

const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";

// last line of the peer's output, by folder
json ask_python(const std::vector<std::string>& folders) {
  const std::string command = fmt::format("{} {}/tests/export/artefact_check.py {} 2>&1", kPython,
                                          LEHR_SOURCE_DIR, fmt::join(folders, " "));
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) out.append(buffer, n);
  EXPECT_EQ(pclose(pipe), 0) << out;
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return json::parse(out.substr(out.rfind('\n') + 1), nullptr, false);
}

TEST(InPython, EveryKindOfArtefactAnswersItsGoldenSamples) {
  if (!file_exists(kPython)) GTEST_SKIP() << "no Python peer: run scripts/setup";
  Scratch scratch;
  const std::string images = scratch.file("images"), colours = scratch.file("colours"),
                    table = scratch.file("table"), values = scratch.file("values");
  export_artefact(image_request(images));
  export_artefact(request(std::make_shared<ToyNet>(3, 1), std::make_shared<ToyImages>(3, 2),
                          "binary_cross_entropy", colours));
  export_artefact(request(std::make_shared<ToyTableNet>(3), std::make_shared<ToyTable>(3),
                          "cross_entropy", table));
  export_artefact(
      request(std::make_shared<ToyTableNet>(2), std::make_shared<ToyTable>(0), "mse", values));
  const auto gpt2 = text_request("gpt2", scratch, "gpt2");
  const auto llama = text_request("llama", scratch, "llama");
  export_artefact(gpt2);
  export_artefact(llama);
  const json answers = ask_python({images, colours, table, values, gpt2.output, llama.output});
  ASSERT_TRUE(answers.is_object() && answers.size() == 6) << answers;
  for (const auto& [folder, answer] : answers.items()) {
    EXPECT_LE(answer["share"].get<double>(), 1) << folder;
    EXPECT_LE(answer["frozen"].get<double>(), 1) << folder;
    EXPECT_LT(answer["batches"].get<double>(), 1e-5) << folder;
    EXPECT_EQ(answer["weights"], json::array()) << folder;
    EXPECT_EQ(answer["promises"], json::array()) << folder;
    EXPECT_EQ(answer["gradients"], json::array()) << folder;
  }
  EXPECT_EQ(answers[images]["classes"].size(), 10u);
  EXPECT_EQ(answers[colours]["classes"].size(), 2u);
  EXPECT_EQ(answers[table]["classes"], json({"c0", "c1", "c2"}));
  EXPECT_EQ(answers[values]["classes"], json::array());
  for (const auto& folder : {gpt2.output, llama.output}) {
    EXPECT_EQ(answers[folder]["generate"], 0);
    EXPECT_EQ(answers[folder]["context"], kToyContext);
  }
}

TEST(InPython, AnotherAnswerIsSeen) {
  if (!file_exists(kPython)) GTEST_SKIP() << "no Python peer: run scripts/setup";
  Scratch scratch;
  const std::string first = scratch.file("first"), second = scratch.file("second");
  export_artefact(image_request(first));
  auto other = image_request(second);
  at::NoGradGuard no_grad;
  for (auto& [name, tensor] : other.model->parameters())
    if (name == "head.fc2.bias") tensor[4] += 1e-3;
  export_artefact(other);
  std::filesystem::rename(second + "/model.pt", first + "/model.pt");
  const json answers = ask_python({first});
  ASSERT_TRUE(answers.is_object()) << answers;
  EXPECT_GT(answers[first]["share"].get<double>(), 1);
  EXPECT_EQ(answers[first]["weights"], json({"head.fc2.bias"}));
}

}  // namespace
}  // namespace lehr::artefact
