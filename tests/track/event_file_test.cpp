// Records and their checksums; what is torn or flipped is never read.
#include "engine/track/event_file.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace lehr::track {
namespace {

TEST(EventFile, HasTheChecksumOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, ReadsBackStepsAndStopsAtATear) {
  std::string text;
  std::vector<size_t> ends;
  for (int64_t step : {0l, 1l, 127l, 128l, 1l << 40}) {
    ScalarEvent event(1.5, step);
    event.add("train/loss", 0.25f);
    text += event_record(event.event());
    ends.push_back(text.size());
  }
  const std::vector<int64_t> steps{0, 1, 127, 128, 1l << 40};
  for (size_t size = 0; size <= text.size(); ++size) {
    RecordReader reader(std::string_view(text).substr(0, size));
    size_t whole = 0, kept = 0;
    while (reader.next()) {
      EXPECT_EQ(step_of_event(reader.data()), steps[whole]);
      kept = ends[whole++];
    }
    EXPECT_EQ(reader.damaged(), kept != size) << size;
    EXPECT_EQ(whole < ends.size() && ends[whole] <= size, false);
  }
}

TEST(EventFile, FindsTheFirstWholeRecordOfAPart) {
  const std::string one = event_record(session_start_event(1.5, 300));
  const std::string text = one + one + one;
  for (size_t begin = 0; begin <= text.size(); ++begin) {
    const size_t next = (begin + one.size() - 1) / one.size() * one.size();
    EXPECT_EQ(first_record(std::string_view(text).substr(begin)),
              next < text.size() ? next - begin : std::string_view::npos);
  }
}

TEST(EventFile, RefusesAFlippedByte) {
  const std::string good = event_record(session_start_event(2.5, 77));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    RecordReader reader(bad);
    EXPECT_FALSE(reader.next()) << i;
    EXPECT_TRUE(reader.damaged()) << i;
  }
}

TEST(EventFile, ReadsNoStepFromGarbage) {
  for (const char* text :
       {"", "\x10", "\x10\xff\xff", "\x1a\x7f", "\x17", "\x09zz", "\xff\xff\xff"})
    EXPECT_EQ(step_of_event(text), 0);
}

}  // namespace
}  // namespace lehr::track
