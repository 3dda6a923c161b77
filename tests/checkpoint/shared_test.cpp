// A checkpoint that several ranks write together: any number of them reads what any number wrote,
// and a part that is missing, damaged or failed is named.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/checkpoint/manifest.h"
#include "engine/checkpoint/saver.h"
#include "tests/base/scratch.h"

namespace lehr::checkpoint {
namespace {

// The state that ranks share, whole: more rows than ranks, fewer, one, none, low precision, another
// memory order.
NamedTensors whole_state() {
  return {{"optimizer.exp_avg.fc.weight", at::randn({7, 3})},
          {"optimizer.exp_avg.fc.bias", at::randn({2})},
          {"optimizer.exp_avg.scale", at::randn({})},
          {"optimizer.exp_avg.empty", at::randn({0, 4})},
          {"optimizer.exp_avg.low", at::randn({5, 2}).to(at::kBFloat16)},
          {"optimizer.exp_avg.conv",
           at::randn({6, 3, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast)}};
}

struct Share {
  NamedTensors state;
  std::map<std::string, Rows> rows;
};

// What rank `index` of `count` holds of it.
Share share_of(const NamedTensors& whole, int64_t count, int64_t index) {
  Share share;
  for (const auto& [name, tensor] : whole) {
    const Rows rows = rows_of_part(tensor.dim() == 0 ? 1 : tensor.size(0), count, index);
    if (count > 1) share.rows[name] = rows;
    if (rows.count == rows.of && (rows.of > 0 || index == 0))
      share.state.push_back({name, tensor});
    else if (rows.count > 0)
      share.state.push_back({name, tensor.narrow(0, rows.first, rows.count)});
  }
  return share;
}

const NamedTensors kWeights{{"fc.weight", at::ones({7, 3})}};
const NamedTensor kAverage{"ema.fc.weight", at::full({7, 3}, 2.0)};

// As each of `count` ranks saves: what all have comes from the first alone. The last part is
// written by `write_last`, if given.
std::string save_by(
    int64_t count, const NamedTensors& whole, const std::string& folder,
    const std::function<void(const Content&, Saver&, const Share&)>& write_last = {}) {
  const std::string temporary = count > 1 ? begin_parts(folder, 7) : "";
  std::vector<std::thread> ranks;
  std::string problem;
  for (int64_t index = count - 1; index >= 0; --index)
    ranks.emplace_back([&, index] {
      Content content;
      content.step = 7, content.samples = 70;
      content.facts = "{}";
      content.part = {index, count, temporary};
      Share share = share_of(whole, count, index);
      content.rows = share.rows;
      if (index == 0) share.state.push_back(kAverage);
      Saver saver(folder, {});
      try {
        if (write_last && index == count - 1)
          write_last(content, saver, share);
        else
          saver.save_now(content, index == 0 ? kWeights : NamedTensors{}, {}, share.state);
      } catch (const Error& e) {
        if (index == 0) problem = e.what();
      }
    });
  for (auto& rank : ranks) rank.join();
  return problem;
}

NamedTensors zeros_like(const NamedTensors& tensors) {
  NamedTensors zeros;
  for (const auto& [name, tensor] : tensors) zeros.push_back({name, at::zeros_like(tensor)});
  return zeros;
}

TEST(SharedCheckpoint, IsReadByAnyNumberOfRanks) {
  const NamedTensors whole = whole_state();
  for (int64_t writers : {1, 2, 3, 4}) {
    Scratch scratch;
    ASSERT_EQ(save_by(writers, whole, scratch.path()), "");
    // one folder, and nothing beside it
    EXPECT_EQ(list_folder(scratch.path()), std::vector<std::string>{"step-00000007"});
    const Loaded loaded = load(scratch / "step-00000007");
    EXPECT_EQ(loaded.shared.size(), writers > 1 ? 1U : 0U);
    for (int64_t readers : {1, 2, 3, 4})
      for (int64_t index = 0; index < readers; ++index) {
        const Share wanted = share_of(whole, readers, index);
        const NamedTensors read = zeros_like(wanted.state);
        restore(loaded, "state", read, wanted.rows);
        for (size_t i = 0; i < read.size(); ++i) {
          EXPECT_TRUE(at::equal(read[i].tensor, wanted.state[i].tensor))
              << read[i].name << " of " << writers << " by " << index << " of " << readers;
          EXPECT_EQ(read[i].tensor.strides(), wanted.state[i].tensor.strides());
        }
      }
    const NamedTensors average{{kAverage.name, at::zeros({7, 3})}};
    restore(loaded, "state", average);
    EXPECT_TRUE(at::equal(average[0].tensor, kAverage.tensor));
  }
}

TEST(SharedCheckpoint, GoesOnInTheBackground) {
  const NamedTensors whole = whole_state();
  Scratch scratch;
  const std::string temporary = begin_parts(scratch.path(), 7);
  Saver first(scratch.path(), {}), second(scratch.path(), {});
  const auto take = [&](Saver& saver, int64_t index) {
    Content content;
    content.step = 7, content.facts = "{}";
    content.part = {index, 2, temporary};
    const Share share = share_of(whole, 2, index);
    content.rows = share.rows;
    saver.take(content, index == 0 ? kWeights : NamedTensors{}, {}, share.state);
    saver.finish_copy();
  };
  take(first, 0);
  EXPECT_EQ(first.committed_step(), -1);  // the other's part is not there
  take(second, 1);
  second.wait(), first.wait();
  EXPECT_EQ(first.committed_step(), 7);
  EXPECT_EQ(load(scratch / "step-00000007").shared.at("state").size(), 2U);
}

TEST(SharedCheckpoint, FailsWithTheReasonOfAPart) {
  Scratch scratch;
  ASSERT_EQ(save_by(1, whole_state(), scratch.path()), "");
  std::filesystem::rename(scratch / "step-00000007", scratch / "step-00000006");
  const std::string problem =
      save_by(2, whole_state(), scratch.path(),
              [](const Content& content, Saver& saver, const Share& share) {
                // its file cannot be written where a folder is in its place
                ::mkdir((content.part.folder + "/state-00001-of-00002.safetensors").c_str(), 0755);
                saver.save_now(content, {}, {}, share.state);
              });
  EXPECT_NE(problem.find("part 1: "), std::string::npos) << problem;
  EXPECT_NE(problem.find("state-00001-of-00002.safetensors"), std::string::npos) << problem;
  EXPECT_EQ(list_folder(scratch.path()), std::vector<std::string>{"step-00000006"});
}

TEST(SharedCheckpoint, IsGivenUpWhenAPartDoesNotCome) {
  Scratch scratch;
  Content content;
  content.step = 7, content.facts = "{}";
  content.part = {0, 2, begin_parts(scratch.path(), 7)};
  Saver(scratch.path(), {}).take(content, kWeights, {}, {});  // and ends, as a rank whose peer died
  EXPECT_TRUE(list_folder(scratch.path()).empty());
}

TEST(SharedCheckpoint, WaitsForAPartOnlySoLong) {
  Scratch scratch;
  Content content;
  content.step = 7, content.facts = "{}";
  content.part = {0, 2, begin_parts(scratch.path(), 7), /*patience_s=*/0.1};
  EXPECT_THROW(Saver(scratch.path(), {}).save_now(content, kWeights, {}, {}), Error);
  EXPECT_TRUE(list_folder(scratch.path()).empty());
}

// An earlier save of the second has failed, so it takes nothing; the first hears of it.
TEST(SharedCheckpoint, HearsOfAPartThatIsNotTaken) {
  Scratch scratch;
  const Share share = share_of(whole_state(), 2, 1);
  Saver second(scratch.path(), {});
  const auto take = [&](const std::string& folder) {
    Content content;
    content.step = 7, content.facts = "{}";
    content.part = {1, 2, folder};
    content.rows = share.rows;
    second.take(content, {}, {}, share.state);
    second.finish_copy();
  };
  take(scratch / "absent");
  const std::string problem =
      save_by(2, whole_state(), scratch.path(),
              [&](const Content& content, Saver&, const Share&) { take(content.part.folder); });
  EXPECT_NE(problem.find("part 1: "), std::string::npos) << problem;
  EXPECT_NE(problem.find("absent"), std::string::npos) << problem;
}

TEST(SharedCheckpoint, LacksNoRows) {
  Scratch scratch;
  const std::string problem = save_by(2, whole_state(), scratch.path(),
                                      [](const Content& content, Saver& saver, const Share& share) {
                                        NamedTensors fewer = share.state;
                                        std::erase_if(fewer, [](const NamedTensor& t) {
                                          return t.name == "optimizer.exp_avg.fc.weight";
                                        });
                                        saver.save_now(content, {}, {}, fewer);
                                      });
  EXPECT_NE(problem.find("row 4 of tensor 'optimizer.exp_avg.fc.weight' is missing"),
            std::string::npos)
      << problem;
  EXPECT_TRUE(list_folder(scratch.path()).empty());
}

TEST(SharedCheckpoint, NamesTheDamagedPart) {
  for (const char* name : {"state-00000-of-00003.safetensors", "state-00002-of-00003.safetensors"})
    for (bool gone : {false, true}) {
      Scratch scratch;
      ASSERT_EQ(save_by(3, whole_state(), scratch.path()), "");
      const std::string path = scratch / "step-00000007/" + name;
      if (gone) {
        std::filesystem::remove(path);
      } else {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(-1, std::ios::end);
        const int last = file.peek();
        file.seekp(-1, std::ios::end);
        file.put(static_cast<char>(last ^ 1));
      }
      std::string complaint;
      EXPECT_FALSE(newest(scratch.path(), [&](const std::string& text) { complaint = text; }));
      EXPECT_NE(complaint.find(name), std::string::npos) << complaint;
    }
}

// A rank reads, and so verifies, the parts that hold rows of its own and no others.
TEST(SharedCheckpoint, IsReadByARankInThePartsThatItNeeds) {
  Scratch scratch;
  const NamedTensors whole = whole_state();
  ASSERT_EQ(save_by(4, whole, scratch.path()), "");
  const std::string path = scratch / "step-00000007";
  const std::string last = path + "/state-00003-of-00004.safetensors";
  const char damaged = static_cast<char>(read_file(last).back() ^ 1);
  std::filesystem::resize_file(last, std::filesystem::file_size(last) - 1);
  std::ofstream(last, std::ios::app) << damaged;
  for (int64_t readers : {2, 4})
    for (int64_t index = 0; index + 1 < readers; ++index) {
      const Share wanted = share_of(whole, readers, index);
      const Loaded loaded = load(path, wanted.rows);
      EXPECT_LT(loaded.shared.at("state").size(), 4U);
      const NamedTensors read = zeros_like(wanted.state);
      restore(loaded, "state", read, wanted.rows);
      for (size_t i = 0; i < read.size(); ++i)
        EXPECT_TRUE(at::equal(read[i].tensor, wanted.state[i].tensor)) << read[i].name;
    }
  for (const auto& wanted : {share_of(whole, 4, 3).rows, std::map<std::string, Rows>{}})
    EXPECT_NE(message_of([&] { load(path, wanted); }).find("state-00003-of-00004"),
              std::string::npos);
}

// Rows twice, rows of two tensors under one name, parts that are no rows.
TEST(SharedCheckpoint, RefusesPartsThatDoNotFit) {
  const auto parse = [](std::vector<SliceRecord> slices) -> std::string {
    Manifest manifest;
    manifest.files = {{"a", "state", 9, 9, ""}, {"b", "state", 9, 9, ""}};
    manifest.slices = std::move(slices);
    try {
      parse_manifest(to_text(manifest), "M");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const SliceRecord first{"t", "F32", {4, 2}, {0, 0}, {2, 2}, "a", ""};
  SliceRecord second{"t", "F32", {4, 2}, {2, 0}, {2, 2}, "b", ""};
  EXPECT_EQ(parse({first, second}), "");
  EXPECT_EQ(parse({second, first}).find("row"), std::string::npos);
  EXPECT_NE(parse({first}).find("row 2 of tensor 't' is missing"), std::string::npos);
  SliceRecord whole = first;
  whole.extent = {4, 2};
  EXPECT_NE(parse({whole, second}).find("row 2 of tensor 't' is there twice"), std::string::npos);
  SliceRecord again = whole;
  again.file = "b";
  EXPECT_NE(parse({whole, again}).find("is there twice"), std::string::npos);
  second.offset = {1, 0};
  EXPECT_NE(parse({first, second}).find("row 1 of tensor 't' is there twice"), std::string::npos);
  second.offset = {2, 0}, second.dtype = "F16";
  EXPECT_NE(parse({first, second}).find("different tensors"), std::string::npos);
  second.dtype = "F32", second.offset = {0, 1}, second.extent = {4, 1};
  EXPECT_NE(parse({first, second}).find("cut otherwise than by rows"), std::string::npos);
  second.offset = {INT64_MAX, 0}, second.extent = {2, 2};
  EXPECT_NE(parse({first, second}).find("cut otherwise than by rows"), std::string::npos);
  second.offset = {3, 0}, second.extent = {2, 2};
  EXPECT_NE(parse({first, second}).find("cut otherwise than by rows"), std::string::npos);
}

}  // namespace
}  // namespace lehr::checkpoint
