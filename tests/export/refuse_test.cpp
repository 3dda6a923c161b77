// A damaged or changed artefact is refused by name, before anything of it is parsed or run.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/hash.h"
#include "engine/export/manifest.h"
#include "engine/export/trace.h"
#include "engine/export/verify.h"
#include "engine/export/wrapper.h"
#include "tests/export/toy.h"

namespace lehr::artefact {
namespace {

using namespace testing;
namespace fs = std::filesystem;

class Refuse : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    original = new Scratch;
    export_artefact(image_request(original->file("a")));
  }
  static void TearDownTestSuite() { delete original; }
  void SetUp() override {
    fs::copy(original->file("a"), scratch.file("a"), fs::copy_options::recursive);
  }

  std::string load() {
    return refused(Code::kCheckpoint, [&] { Artefact artefact(scratch.file("a")); });
  }
  // a manifest that is right for what lies in the folder now: integrity, without honesty
  void sign_again() {
    const std::string path = scratch.file("a/MANIFEST.json");
    Manifest manifest = parse_manifest(read(original->file("a/MANIFEST.json")), path);
    manifest.files = records_of(scratch.file("a"));
    write(path, to_text(manifest));
  }
  static Scratch* original;
  Scratch scratch;
};
Scratch* Refuse::original = nullptr;

TEST_F(Refuse, AFlippedBitAnywhereInAnyFile) {
  for (const auto& name : list_folder(scratch.file("a"))) {
    const std::string path = join_path(scratch.file("a"), name), good = read(path);
    for (int i = 0; i < 12; ++i) {
      std::string bad = good;
      bad[i == 0   ? 0
          : i == 1 ? bad.size() - 1
                   : (i * 2654435761u) % bad.size()] ^= static_cast<char>(1 << (i % 8));
      write(path, bad);
      const std::string message = load();
      EXPECT_NE(message.find(name), std::string::npos) << message;
    }
    write(path, good);
  }
  EXPECT_NO_THROW(Artefact(scratch.file("a")));
}

TEST_F(Refuse, AMissingFile) {
  for (const auto& name : list_folder(scratch.file("a"))) {
    fs::rename(join_path(scratch.file("a"), name), scratch.file("away"));
    EXPECT_NE(load().find(name), std::string::npos);
    fs::rename(scratch.file("away"), join_path(scratch.file("a"), name));
  }
}

TEST_F(Refuse, AnExtraFile) {
  write(scratch.file("a/extra.pt"), "x");
  EXPECT_NE(load().find("extra.pt"), std::string::npos);
  fs::remove(scratch.file("a/extra.pt"));
  fs::create_directory(scratch.file("a/code"));
  write(scratch.file("a/code/x"), "x");
  EXPECT_NE(load().find("code/x"), std::string::npos);
}

TEST_F(Refuse, AFileThatIsLongerOrShorter) {
  const std::string good = read(scratch.file("a/model.pt"));
  write(scratch.file("a/model.pt"), good + "x");
  EXPECT_NE(load().find("model.pt"), std::string::npos);
  write(scratch.file("a/model.pt"), good.substr(0, good.size() / 2));
  EXPECT_NE(load().find("model.pt"), std::string::npos);
}

TEST_F(Refuse, ALinkInPlaceOfAFile) {
  fs::rename(scratch.file("a/model.pt"), scratch.file("model.pt"));
  fs::create_symlink(scratch.file("model.pt"), scratch.file("a/model.pt"));
  EXPECT_NE(load().find("model.pt"), std::string::npos);
}

TEST_F(Refuse, AManifestThatWasChangedByHand) {
  const std::string path = scratch.file("a/MANIFEST.json");
  std::string text = read(path);
  const size_t at = text.find("cross_entropy");
  ASSERT_NE(at, std::string::npos);
  text[at] = 'k';
  write(path, text);
  EXPECT_NE(load().find("SHA-256"), std::string::npos);
}

TEST_F(Refuse, AManifestOfAnotherFormatOrKind) {
  const std::string path = scratch.file("a/MANIFEST.json");
  for (const auto& [from, to, said] :
       {std::array{"\"format\": 1", "\"format\": 7", "format 7"},
        std::array{"\"kind\": \"artefact\"", "\"kind\": \"checkpoin\"", "something else"}}) {
    std::string text = read(original->file("a/MANIFEST.json"));
    text.replace(text.find(from), std::string(from).size(), to);
    text.replace(12, 64, std::string(64, '0'));
    text.replace(12, 64, sha256(text));
    write(path, text);
    EXPECT_NE(load().find(said), std::string::npos) << load();
  }
}

TEST_F(Refuse, AManifestThatReachesOutside) {
  const std::string path = scratch.file("a/MANIFEST.json");
  write(scratch.file("secret"), "s");
  Manifest manifest = parse_manifest(read(path), path);
  for (const char* name : {"../secret", "/etc/hostname", "a/../../secret", ""}) {
    Manifest bad = manifest;
    bad.files.push_back({name, 1, sha256("s")});
    write(path, to_text(bad));
    EXPECT_NE(load().find("plain name"), std::string::npos) << name;
  }
}

TEST_F(Refuse, ADamagedModelEvenWhenTheManifestSaysItIsRight) {
  // every byte of the archive's structure matters to the reader in front of LibTorch's
  const std::string path = scratch.file("a/model.pt"), good = read(path);
  write(path, good.substr(0, good.size() - 1));
  sign_again();
  EXPECT_NE(load().find("model.pt"), std::string::npos);
  write(path, "PK" + good);
  sign_again();
  EXPECT_NE(load().find("model.pt"), std::string::npos);
  write(path, "");
  sign_again();
  EXPECT_NE(load().find("model.pt"), std::string::npos);
}

// LibTorch runs a module's __setstate__ while it loads the file
TEST_F(Refuse, CodeThatWouldRunOnLoadingBeforeItRuns) {
  const std::string trap = scratch.file("written-by-the-model");
  const auto r = image_request("");
  auto around = surroundings(r.dataset->info(), r.dataset->preprocessing(), r.loss);
  around.source += fmt::format(R"(
def __getstate__(self) -> int:
    return 1
def __setstate__(self, state: int) -> None:
    torch.save(state, "{}")
)",
                               trap);
  const std::string archive = wrap(trace(*r.model, draw(*r.dataset, 2).inputs), around).archive();
  try {
    load_script(archive);
  } catch (const std::exception&) {  // what the trap leaves behind is no whole model
  }
  ASSERT_TRUE(fs::remove(trap)) << "the trap does not work, so nothing is shown";
  write(scratch.file("a/model.pt"), archive);
  sign_again();
  const std::string message = load();
  EXPECT_NE(message.find("nothing of the file was run"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(trap));
}

TEST_F(Refuse, AnswersOfAnotherFormThanTheManifestSays) {
  const auto r = image_request("");
  const Script core = trace(*r.model, draw(*r.dataset, 2).inputs);
  const std::string answer = "return torch.argmax(probability, 1), probability";
  for (const char* other : {"return torch.argmax(probability, 1) + 10, probability",
                            "return torch.argmax(probability, 1) - 10, probability",
                            "return torch.argmax(probability, 1).to(torch.float32), probability",
                            "return torch.argmax(probability, 0), probability",
                            "return torch.argmax(probability, 1), probability[:, 1:]",
                            "return torch.argmax(probability, 1), probability[0]"}) {
    auto around = surroundings(r.dataset->info(), r.dataset->preprocessing(), r.loss);
    around.source.replace(around.source.find(answer), answer.size(), other);
    write(scratch.file("a/model.pt"), wrap(core, around).archive());
    sign_again();
    const Artefact artefact(scratch.file("a"));
    const std::string message = refused(Code::kCheckpoint, [&] {
      artefact.predict(r.dataset->raw(data::Split::kTest, {0, 1, 2}));
    });
    EXPECT_NE(message.find("another form"), std::string::npos) << other << message;
  }
}

TEST_F(Refuse, AFolderThatIsNoArtefact) {
  EXPECT_NE(
      refused(Code::kCheckpoint, [&] { Artefact artefact(scratch.path()); }).find("MANIFEST.json"),
      std::string::npos);
  EXPECT_NE(refused(Code::kCheckpoint, [&] { Artefact artefact(scratch.file("nothing")); })
                .find("nothing"),
            std::string::npos);
}

TEST_F(Refuse, InputOfAnotherShape) {
  const Artefact artefact(scratch.file("a"));
  data::RawBatch raw;
  for (const auto& images :
       {at::zeros({2, 9, 8}, at::kByte), at::zeros({2, 8, 8}), at::zeros({8, 8}, at::kByte),
        at::zeros({2, 8, 8, 3}, at::kByte), at::Tensor()}) {
    raw.images = images;
    EXPECT_NE(refused(Code::kData, [&] { artefact.predict(raw); }).find("does not take"),
              std::string::npos);
  }
}

TEST(RefuseTable, InputOfAnotherShape) {
  Scratch scratch;
  export_artefact(request(std::make_shared<ToyTableNet>(3), std::make_shared<ToyTable>(3),
                          "cross_entropy", scratch.file("a")));
  const Artefact artefact(scratch.file("a"));
  data::RawBatch raw;
  raw.numbers = at::zeros({2, 2}, at::kDouble);
  raw.strings = {{"x"}};
  EXPECT_NE(refused(Code::kData, [&] { artefact.predict(raw); }).find("rows"), std::string::npos);
  raw.strings = {{"x"}, {}};  // forward itself looks at values
  EXPECT_NE(refused(Code::kData, [&] { artefact.predict(raw); }).find("row 1 has 0"),
            std::string::npos);
  raw.strings = {{"x"}, {"y"}};
  raw.numbers[1][0] = std::numeric_limits<double>::infinity();
  EXPECT_NE(refused(Code::kData, [&] { artefact.predict(raw); })
                .find("input: numbers: row 1, column 0 (age) is inf"),
            std::string::npos);
  raw.numbers = at::zeros({2, 3}, at::kDouble);
  EXPECT_NE(refused(Code::kData, [&] { artefact.predict(raw); }).find("[N, 2]"), std::string::npos);
}

TEST_F(Refuse, DescribeVerifiesFirst) {
  const Description description = describe(scratch.file("a"));
  EXPECT_NE(description.text.find("images uint8 [N, 8, 8]"), std::string::npos) << description.text;
  EXPECT_NE(description.text.find("same bits"), std::string::npos) << description.text;
  EXPECT_TRUE(nlohmann::json::parse(description.json)["golden_replay"]["ok"].get<bool>());
  write(scratch.file("a/metrics.json"), "{}");
  refused(Code::kCheckpoint, [&] { describe(scratch.file("a")); });
}

}  // namespace
}  // namespace lehr::artefact
