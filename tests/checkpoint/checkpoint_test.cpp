// Round trips, what is refused and by which name, and what of a killed save is left behind.
#include "engine/checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "tests/base/scratch.h"
#include "tests/checkpoint/content.h"

namespace lehr::checkpoint {
namespace {

void overwrite(const std::string& path, const std::string& bytes) {
  FILE* file = fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr) << path;
  fwrite(bytes.data(), 1, bytes.size(), file);
  fclose(file);
}

struct Complaints {
  std::vector<std::string> all;
  std::function<void(const std::string&)> take() {
    return [this](const std::string& text) { all.push_back(text); };
  }
  std::string text() const {
    std::string joined;
    for (const auto& one : all) joined += one + "\n";
    return joined;
  }
};

}  // namespace

TEST(Checkpoint, RoundTripsEverything) {
  Scratch scratch;
  std::string path = save(scratch / "run/checkpoints", Known(123).content);
  EXPECT_EQ(path, scratch / "run/checkpoints/step-00000123");
  Loaded loaded = load(path);
  EXPECT_EQ(loaded.step, 123);
  EXPECT_EQ(difference(loaded), "");
  EXPECT_EQ(list_folder(scratch / "run/checkpoints"), std::vector<std::string>{"step-00000123"});
  EXPECT_EQ(list_folder(path),
            (std::vector<std::string>{"MANIFEST.json", "empty.txt", "model.safetensors",
                                      "recipe.yaml", "state.safetensors"}));
}

TEST(Checkpoint, EqualContentGivesEqualBytes) {
  Scratch scratch;
  std::string a = save(scratch / "a", Known(5).content), b = save(scratch / "b", Known(5).content);
  for (const auto& name : list_folder(a))
    EXPECT_EQ(read_file(join_path(a, name)), read_file(join_path(b, name))) << name;
}

TEST(Checkpoint, StoredOnesOfFormat1Load) {
  for (const char* name : {"format-1", "format-1-shared"}) {  // by one process; by three
    const std::string folder = std::string(LEHR_SOURCE_DIR "/tests/checkpoint/data/") + name;
    const Loaded loaded = load(folder + "/step-00000007");
    EXPECT_EQ(loaded.step, 7);
    EXPECT_EQ(difference(loaded), "") << name;
    EXPECT_EQ(pieces_of(loaded, "state").size(), name == std::string("format-1") ? 1U : 3U);
  }
}

TEST(Checkpoint, AnExistingStepIsNotOverwritten) {
  Scratch scratch;
  std::string path = save(scratch.path(), Known(1).content);
  Known other(1);
  other.content.samples = 9;
  std::string message = message_of([&] { save(scratch.path(), other.content); });
  EXPECT_NE(message.find("already"), std::string::npos) << message;
  EXPECT_EQ(difference(load(path)), "");
  EXPECT_EQ(list_folder(scratch.path()).size(), 1u);
}

TEST(Checkpoint, AFailedSaveLeavesNothingBehindAndSaysWhy) {
  Scratch scratch;
  save(scratch.path(), Known(1).content);
  Known bad(2);
  bad.content.texts["no/such/folder"] = "x";
  std::string message = message_of([&] { save(scratch.path(), bad.content); });
  for (const char* part :
       {"step 2 was not saved", "no/such/folder", "older checkpoints are untouched"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(list_folder(scratch.path()), std::vector<std::string>{"step-00000001"});
}

TEST(Checkpoint, ASaveThatCannotFitIsRefusedBeforeItWrites) {
  Scratch scratch;
  Known known(2);
  // never read: the free space is asked for first
  known.content.shards["weights"].push_back({"huge", "U8", {1ll << 60}, nullptr, 1ull << 60});
  std::string message = message_of([&] { save(scratch.path(), known.content); });
  EXPECT_NE(message.find("does not fit"), std::string::npos) << message;
  EXPECT_TRUE(list_folder(scratch.path()).empty());
}

TEST(Checkpoint, MissingShortLongAndSwappedFilesAreRefusedByName) {
  Scratch scratch;
  std::string path = save(scratch.path(), Known(1).content);
  std::string other = save(scratch.path(), Known(2).content);
  for (const auto& name : list_folder(path)) {
    std::string file = join_path(path, name), original = read_file(file);
    auto refused = [&](const std::string& how) {
      std::string message = message_of([&] { load(path); });
      EXPECT_NE(message.find(file), std::string::npos) << how << " " << name << ": " << message;
    };
    unlink(file.c_str());
    refused("missing");
    make_folders(file);
    refused("a folder instead of");
    remove_tree(file);
    ASSERT_EQ(symlink(join_path(other, name).c_str(), file.c_str()), 0);
    if (name != "empty.txt" && name != "MANIFEST.json") refused("a link instead of");
    unlink(file.c_str());
    if (!original.empty()) {
      overwrite(file, original.substr(1));
      refused("short");
    }
    overwrite(file, original + "x");
    refused("long");
    if (name != "empty.txt" && name != "MANIFEST.json") {
      overwrite(file, read_file(join_path(other, name)));
      refused("swapped");
    }
    overwrite(file, original);
    EXPECT_EQ(difference(load(path)), "");
  }
}

TEST(Checkpoint, ADamagedTensorIsNamed) {
  Scratch scratch;
  std::string path = save(scratch.path(), Known(1).content);
  std::string file = join_path(path, "model.safetensors"), bytes = read_file(file);
  bytes.back() ^= 1;  // the narrowest dtype is last
  overwrite(file, bytes);
  std::string message = message_of([&] { load(path); });
  EXPECT_NE(message.find("tensor 'norm.mask'"), std::string::npos) << message;
  EXPECT_NE(message.find(file), std::string::npos) << message;
}

TEST(Checkpoint, AManifestOfAnotherFormatIsRefusedWithAHint) {
  Scratch scratch;
  std::string path = save(scratch.path(), Known(1).content);
  std::string file = join_path(path, "MANIFEST.json"), text = read_file(file);
  text.replace(text.find("\"format\": 1"), 11, "\"format\": 2");
  size_t at = std::string("{\"sha256\": \"").size();
  text.replace(at, 64, std::string(64, '0'));
  text.replace(at, 64, sha256(text));
  overwrite(file, text);
  std::string message = message_of([&] { load(path); });
  EXPECT_NE(message.find("format 2"), std::string::npos) << message;
  EXPECT_NE(message.find("release"), std::string::npos) << message;
}

TEST(Checkpoint, AManifestThatPointsOutsideItsFolderIsRefused) {
  Scratch scratch;
  std::string path = save(scratch.path(), Known(1).content);
  std::string file = join_path(path, "MANIFEST.json"), text = read_file(file);
  text.replace(text.find("recipe.yaml"), 11, "../evil.yml");
  size_t at = std::string("{\"sha256\": \"").size();
  text.replace(at, 64, std::string(64, '0'));
  text.replace(at, 64, sha256(text));
  overwrite(file, text);
  EXPECT_NE(message_of([&] { load(path); }).find("plain name"), std::string::npos);
}

TEST(ClaimNewest, GivesTheNewestAndNothingWhereThereIsNone) {
  Scratch scratch;
  Complaints complaints;
  EXPECT_FALSE(claim_newest(scratch / "absent", complaints.take()));
  EXPECT_FALSE(claim_newest(scratch.path(), complaints.take()));
  for (int64_t step : {9, 10, 100000000, 8}) save(scratch.path(), Known(step).content);
  auto loaded = claim_newest(scratch.path(), complaints.take());
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 100000000);
  EXPECT_EQ(difference(*loaded), "");
  EXPECT_EQ(complaints.text(), "");
}

TEST(ClaimNewest, NamesADamagedOneSetsItAsideAndUsesTheOneBefore) {
  Scratch scratch;
  for (int64_t step : {1, 2, 3}) save(scratch.path(), Known(step).content);
  overwrite(scratch / "step-00000003/MANIFEST.json", "{}");
  overwrite(scratch / "step-00000002/recipe.yaml", "changed by hand");
  Complaints complaints;
  auto loaded = claim_newest(scratch.path(), complaints.take());
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 1);
  ASSERT_EQ(complaints.all.size(), 2u);
  EXPECT_NE(complaints.all[0].find("step-00000003/MANIFEST.json"), std::string::npos);
  EXPECT_NE(complaints.all[1].find("step-00000002/recipe.yaml"), std::string::npos);
  auto names = list_folder(scratch.path());
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(names[0].rfind(".corrupt-step-00000002-", 0), 0u) << names[0];
  EXPECT_EQ(names[1].rfind(".corrupt-step-00000003-", 0), 0u) << names[1];
  // the names are free again
  save(scratch.path(), Known(2).content);
  EXPECT_EQ(claim_newest(scratch.path(), complaints.take())->step, 2);
}

TEST(ClaimNewest, ARenamedCheckpointIsNotTakenForAnotherStep) {
  Scratch scratch;
  save(scratch.path(), Known(1).content);
  save(scratch.path(), Known(2).content);
  ASSERT_EQ(rename((scratch / "step-00000001").c_str(), (scratch / "step-00000009").c_str()), 0);
  Complaints complaints;
  EXPECT_EQ(claim_newest(scratch.path(), complaints.take())->step, 2);
  EXPECT_NE(complaints.text().find("is of step 1"), std::string::npos) << complaints.text();
}

TEST(ClaimNewest, CollectsLeftoversAndTouchesNothingElse) {
  Scratch scratch;
  save(scratch.path(), Known(1).content);
  for (const char* name : {"step-00000002.tmp-0123", ".trash-step-00000000-45", "notes", "step-1",
                           "step-00000003-copy", ".corrupt-step-00000004-67"}) {
    make_folders(scratch / name);
    overwrite(join_path(scratch / name, "file"), "x");
  }
  Complaints complaints;
  EXPECT_EQ(claim_newest(scratch.path(), complaints.take())->step, 1);
  EXPECT_EQ(complaints.text(), "");
  EXPECT_EQ(list_folder(scratch.path()),
            (std::vector<std::string>{".corrupt-step-00000004-67", "notes", "step-00000001",
                                      "step-00000003-copy", "step-1"}));
}

TEST(ClaimNewest, AStepThatMayNotBeReadIsNotCalledDamaged) {
  if (geteuid() == 0) {
    // root reads everything: give the question to a process that is not root
    Scratch scratch("/tmp");
    save(scratch.path(), Known(1).content);
    chmod(scratch.path().c_str(), 0777);
    chmod((scratch / "step-00000001/MANIFEST.json").c_str(), 0);
    pid_t child = fork();
    if (child == 0) {
      if (setuid(65534) != 0) _exit(9);
      std::string message =
          message_of([&] { claim_newest(scratch.path(), [](const std::string&) {}); });
      _exit(message.find("Permission denied") != std::string::npos ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(file_exists(scratch / "step-00000001"));
    return;
  }
  Scratch scratch;
  save(scratch.path(), Known(1).content);
  chmod((scratch / "step-00000001/MANIFEST.json").c_str(), 0);
  EXPECT_NE(message_of([&] { claim_newest(scratch.path(), [](const std::string&) {}); }), "");
  EXPECT_TRUE(file_exists(scratch / "step-00000001"));
}

TEST(List, ShowsNewestFirstWithMonitorsAndProblems) {
  Scratch scratch;
  for (int64_t step : {1, 2, 3}) save(scratch.path(), Known(step).content);
  overwrite(scratch / "step-00000002/MANIFEST.json", "");
  make_folders(scratch / "step-00000004.tmp-1");
  auto entries = list(scratch.path());
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].step, 3);
  ASSERT_TRUE(entries[0].monitor);
  EXPECT_EQ(entries[0].monitor->value, 3.5);
  EXPECT_EQ(entries[0].problem, "");
  EXPECT_NE(entries[1].problem.find("step-00000002/MANIFEST.json"), std::string::npos);
  EXPECT_EQ(entries[2].path, scratch / "step-00000001");
  EXPECT_TRUE(list(scratch / "absent").empty());
}

static std::vector<int64_t> steps_in(const std::string& folder) {
  std::vector<int64_t> steps;
  for (const auto& entry : list(folder)) steps.push_back(entry.step);
  return steps;
}

TEST(Retain, KeepsLatestBestAndEvery) {
  Scratch scratch;
  // monitors: 1.5 2.5 3.5 4.5 0.5 1.5 2.5 3.5 4.5 0.5
  for (int64_t step = 1; step <= 10; ++step) save(scratch.path(), Known(step).content);
  retain(scratch.path(), {3, 2, 6, true});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{10, 9, 8, 6, 4}));
  retain(scratch.path(), {2, 1, 0, false});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{10, 9}));
  EXPECT_EQ(list_folder(scratch.path()).size(), 2u);
}

// However many there are of those kept for good, a save opens none of them.
TEST(Retain, DoesNotOpenWhatIsKeptForGood) {
  Scratch scratch;
  for (int64_t step = 1; step <= 8; ++step) save(scratch.path(), Known(step).content);
  // 4.5 of step 4 is the largest, and stays anyhow; of the others 3.5 of step 3
  retain(scratch.path(), {2, 1, 4, true});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{8, 7, 4, 3}));
}

TEST(Retain, ComparesValuesOfOneName) {
  Scratch scratch;
  const auto save_with = [&](int64_t step, const std::string& monitor) {
    Known known(step);
    known.content.facts = "{\"monitor\":" + monitor + "}";
    save(scratch.path(), known.content);
  };
  save_with(1, "{\"name\":\"loss\",\"value\":9}");
  save_with(2, "{\"name\":\"r2\",\"value\":0.5}");
  save_with(3, "0.25");  // of an older build
  save_with(4, "null");
  save_with(5, "{\"name\":\"r2\"}");
  save_with(6, "{\"name\":\"r2\",\"value\":0.125}");
  retain(scratch.path(), {2, 2, 0, true, "r2"});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{6, 5, 3, 2}));
}

TEST(Restate, GivesACheckpointOtherFactsAndNothingElse) {
  Scratch scratch;
  const std::string path = save(scratch / "checkpoints", Known(3).content);
  const FolderLock lock(scratch.path());
  restate(path, "{\"monitor\":{\"name\":\"loss\",\"value\":2}}", lock);
  const Loaded loaded = load(path);
  EXPECT_EQ(loaded.facts, "{\"monitor\":{\"name\":\"loss\",\"value\":2}}");
  EXPECT_EQ(list(scratch / "checkpoints")[0].monitor->value, 2);
  restate(path, Known(3).content.facts, lock);
  EXPECT_EQ(difference(load(path)), "");
  EXPECT_EQ(list_folder(path).size(), 5u);
}

TEST(Newest, PassesOverWhatIsDamagedAndChangesNothing) {
  Scratch scratch;
  for (int64_t step : {1, 2}) save(scratch.path(), Known(step).content);
  overwrite(scratch / "step-00000002/recipe.yaml", "changed by hand");
  make_folders(scratch / "step-00000003.tmp-0a");
  make_folders(scratch / ".trash-step-00000000-0b");
  const auto before = list_folder(scratch.path());
  Complaints complaints;
  EXPECT_EQ(newest(scratch.path(), complaints.take())->step, 1);
  EXPECT_EQ(complaints.all.size(), 1u);
  EXPECT_EQ(list_folder(scratch.path()), before);
  EXPECT_FALSE(newest(scratch / "absent", complaints.take()));
}

TEST(Retain, OfEqualOnesTheFirstIsBest) {
  Scratch scratch;
  for (int64_t step : {4, 9, 10, 11}) save(scratch.path(), Known(step).content);
  retain(scratch.path(), {2, 1, 0, true});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{11, 10, 4}));
}

TEST(Retain, KeepsTwoWhateverItIsTold) {
  Scratch scratch;
  for (int64_t step : {1, 2, 3}) save(scratch.path(), Known(step).content);
  retain(scratch.path(), {0, 0, 0, true});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{3, 2}));
}

TEST(Retain, DamagedOnesNeitherCountNorVanish) {
  Scratch scratch;
  for (int64_t step : {1, 2, 3, 4}) save(scratch.path(), Known(step).content);
  overwrite(scratch / "step-00000004/MANIFEST.json", "");
  retain(scratch.path(), {2, 0, 0, true});
  EXPECT_EQ(steps_in(scratch.path()), (std::vector<int64_t>{4, 3, 2}));
}

TEST(CheckpointFields, AreAllFreeToChange) {
  auto all = sections();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].name, "checkpoint");
  for (const auto& field : all[0].fields) {
    EXPECT_FALSE(field.exact) << field.name;
    EXPECT_FALSE(field.text.empty()) << field.name;
  }
  EXPECT_EQ(FixedFields().get<CheckpointFields>().resume, "auto");
}

// one Python process: the safetensors package reads what we wrote, without torch
TEST(Checkpoint, PythonsSafetensorsReadsTheWeights) {
  std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
  if (!file_exists(python))
    GTEST_SKIP() << "no " << python << ": scripts/setup --peers installs it";
  Scratch scratch;
  Known known(3);
  std::string path = save(scratch.path(), known.content);
  std::string expected;
  for (const auto& tensor : known.content.shards["weights"]) {
    expected += tensor.name + " " + tensor.dtype + " [";
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      expected += (i ? ", " : "") + std::to_string(tensor.shape[i]);
    expected += "] ";
    for (uint64_t i = 0; i < tensor.bytes; ++i) {
      char hex[3];
      snprintf(hex, sizeof hex, "%02x", static_cast<const unsigned char*>(tensor.data)[i]);
      expected += hex;
    }
    expected += "\n";
  }
  std::string script =
      "import sys\nfrom safetensors import deserialize\n"
      "for name, t in sorted(deserialize(open(sys.argv[1], 'rb').read())):\n"
      "    print(name, t['dtype'], t['shape'], bytes(t['data']).hex())\n"
      "from safetensors.numpy import load_file\n"
      "assert load_file(sys.argv[2])['exp_avg.layer.weight'].shape == (4, 3)\n";
  overwrite(scratch / "read.py", script);
  std::string command = python + " " + (scratch / "read.py") + " " +
                        join_path(path, "model.safetensors") + " " +
                        join_path(path, "state.safetensors") + " > " + (scratch / "out") + " 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << read_file(scratch / "out");
  std::string output = read_file(scratch / "out");
  EXPECT_EQ(output.size(), expected.size()) << output;
  for (size_t begin = 0; begin < expected.size();) {
    size_t end = expected.find('\n', begin);
    std::string line = expected.substr(begin, end - begin);
    EXPECT_NE(output.find(line), std::string::npos) << "lacks " << line << "\nin\n" << output;
    begin = end + 1;
  }
}

}  // namespace lehr::checkpoint
