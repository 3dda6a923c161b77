// A byte changed anywhere in any file is refused by that file's name, and the checkpoint before is
// used. LEHR_SOAK_FLIPS sets the count (2,000).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/base/error.h"
#include "tests/base/scratch.h"
#include "tests/checkpoint/content.h"

namespace lehr::checkpoint {
namespace {

// xor of one byte in place, without touching anything else; twice is undone
void flip(const std::string& path, uint64_t at, uint8_t mask) {
  int fd = open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0) << path;
  uint8_t byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, at), 1);
  byte ^= mask;
  ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

}  // namespace

TEST(ByteFlip, IsRefusedByNameAndTheOneBeforeIsUsed) {
  Scratch scratch(in_memory());
  save(scratch.path(), Known(1).content);
  std::string path = save(scratch.path(), Known(2).content);
  struct Place {
    std::string name;
    uint64_t at;
  };
  std::vector<Place> places;
  for (const auto& name : list_folder(path))
    for (uint64_t at = 0, size = read_file(join_path(path, name)).size(); at < size; ++at)
      places.push_back({name, at});

  const char* wanted = std::getenv("LEHR_SOAK_FLIPS");
  const int64_t count = wanted ? std::atoll(wanted) : 2000;
  Random random(2, Stream::kTest, 0);
  for (int64_t i = 0; i < count; ++i) {
    Place place = places[random.below(places.size())];
    uint8_t mask = static_cast<uint8_t>(1 + random.below(255));
    flip(join_path(path, place.name), place.at, mask);
    std::vector<std::string> complaints;
    auto loaded =
        claim_newest(scratch.path(), [&](const std::string& text) { complaints.push_back(text); });
    ASSERT_TRUE(loaded);
    ASSERT_EQ(loaded->step, 1) << place.name << " byte " << place.at << " xor " << int{mask};
    ASSERT_EQ(difference(*loaded), "");
    ASSERT_EQ(complaints.size(), 1u);
    ASSERT_NE(complaints[0].find(join_path(path, place.name)), std::string::npos) << complaints[0];
    size_t aside = complaints[0].rfind(" ");
    ASSERT_EQ(rename(complaints[0].substr(aside + 1).c_str(), path.c_str()), 0) << complaints[0];
    flip(join_path(path, place.name), place.at, mask);
  }
  EXPECT_EQ(difference(load(path)), "");
  std::cout << count << " flips over " << places.size() << " bytes, all refused\n";
}

TEST(ByteFlip, EveryBitOfEveryFileIsCovered) {
  Scratch scratch(in_memory());
  Known known(3);
  auto& weights = known.content.shards["weights"];
  weights.push_back({"x", "F32", {0}, nullptr, 0});
  while (safetensors_header(in_file_order(weights)).back() != ' ')
    weights.back().name += "x";  // has padding
  std::string path = save(scratch.path(), known.content);
  for (const auto& name : list_folder(path)) {
    std::string file = join_path(path, name);
    for (uint64_t at = 0, size = read_file(file).size(); at < size; ++at)
      for (int mask : {1, 2, 4, 8, 16, 32, 64, 128, ' ' ^ '\n'}) {  // the last: padding stays blank
        flip(file, at, mask);
        std::string message = message_of([&] { load(path); });
        ASSERT_NE(message.find(file), std::string::npos)
            << name << " byte " << at << " xor " << mask;
        flip(file, at, mask);
      }
  }
}

}  // namespace lehr::checkpoint
