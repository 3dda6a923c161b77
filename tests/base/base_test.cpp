// The small things that every room leans on: known answers.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "engine/base/cores.h"
#include "engine/base/device.h"
#include "engine/base/error.h"
#include "engine/base/fields.h"
#include "engine/base/hash.h"
#include "engine/base/random.h"
#include "engine/base/what_is.h"
#include "tests/base/scratch.h"

namespace lehr {

TEST(Error, SaysWhereWhatAndWhatToDo) {
  Error e(Code::kRecipe, "is no number", "r.yaml:3:5", "write one");
  EXPECT_STREQ(e.what(), "r.yaml:3:5: is no number\n  write one");
  EXPECT_STREQ(Error(Code::kData, "broken").what(), "broken");
}

TEST(Error, NearestNameIsFoundAndFarOnesAreNot) {
  std::vector<std::string> known = {"optimizer", "training", "checkpoint"};
  EXPECT_EQ(nearest("optimiser", known), "optimizer");
  EXPECT_EQ(nearest("chekcpoint", known), "checkpoint");
  EXPECT_EQ(nearest("xyz", known), "");
  EXPECT_EQ(nearest(std::string(100000, 'a'), known), "");
}

TEST(Hash, GivesThePublishedValues) {
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(xxh3_128("", 0), "99aa06d3014798d86001c324468d497f");
}

TEST(Hash, OfPiecesAndFilesEqualsTheWhole) {
  Scratch scratch;
  std::string text(3'000'000, 'q');
  for (size_t i = 0; i < text.size(); i += 7) text[i] = static_cast<char>(i);
  write_file_durably(scratch / "f", text);
  Xxh3 pieces;
  for (size_t i = 0; i < text.size(); i += 4099)
    pieces.update(&text[i], std::min<size_t>(4099, text.size() - i));
  EXPECT_EQ(pieces.digest(), xxh3_128(text.data(), text.size()));
  EXPECT_EQ(xxh3_128_of_file(scratch / "f"), xxh3_128(text.data(), text.size()));
  EXPECT_EQ(sha256_of_file(scratch / "f"), sha256(text));
  EXPECT_THROW(sha256_of_file(scratch / "absent"), Error);
}

// test vectors of the Random123 distribution
TEST(Random, PhiloxGivesThePublishedValues) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, ~0ull),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822ull),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, DrawsDependOnTheirKeyOnly) {
  Random a(1, Stream::kTest, 5, 6), b(1, Stream::kTest, 5, 6), c(1, Stream::kTest, 6, 5);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    uint32_t x = a.bits();
    EXPECT_EQ(x, b.bits());
    equal += x == c.bits();
  }
  EXPECT_EQ(equal, 0);
}

TEST(Random, UniformAndNormalHaveTheirMoments) {
  Random random(3, Stream::kTest, 0);
  double sum = 0, squares = 0, uniform = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    float u = random.uniform(), x = random.normal();
    ASSERT_TRUE(u >= 0 && u < 1 && std::isfinite(x));
    ASSERT_LT(random.below(3), 3u);
    uniform += u, sum += x, squares += x * x;
  }
  EXPECT_NEAR(uniform / n, 0.5, 0.005);
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.02);
}

TEST(Fields, DurationsReadAndPrint) {
  using Unit = Duration::Unit;
  EXPECT_EQ(parse_duration("500"), (Duration{500, Unit::kSteps}));
  EXPECT_EQ(parse_duration("2ep"), (Duration{2, Unit::kEpochs}));
  EXPECT_EQ(parse_duration("0.5 epochs"), (Duration{0.5, Unit::kEpochs}));
  EXPECT_EQ(parse_duration("30min"), (Duration{1800, Unit::kSeconds}));
  EXPECT_EQ(parse_duration("1e9tok"), (Duration{1e9, Unit::kTokens}));
  for (const char* wrong : {"", "ep", "-1", "1.5", "inf", "nan", "5 parsecs", "0x10p", "1e400"})
    EXPECT_FALSE(parse_duration(wrong)) << wrong;
  for (const char* text : {"500", "2ep", "1800s", "10000samples"})
    EXPECT_EQ(to_string(*parse_duration(text)), text);
}

TEST(Fields, NamesThatBecomePathsStayInTheirFolder) {
  using enum NameRule;
  for (const char* good : {"a", "lr1e-3", "007", "1.10", "two words",
                           "gr\xC3\xB6\xC3\x9F"
                           "e",
                           "a..b"})
    for (NameRule rule : {kPlain, kNested}) EXPECT_EQ(name_problem(good, rule), "") << good;
  EXPECT_EQ(name_problem("exp/lr1e-3/b", kNested), "");
  EXPECT_EQ(name_problem("exp/lr1e-3", kPlain), "holds a slash");
  for (const char* bad : {"", ".", "..", ".hidden", "-n", "../up", "a/../b", "/a", "a/", "a//b",
                          "a/-b", "a\tb", "a\nb", "a\x7F", "a/.b"})
    for (NameRule rule : {kPlain, kNested}) EXPECT_NE(name_problem(bad, rule), "") << bad;
  EXPECT_NE(name_problem(std::string(201, 'a'), kPlain), "");
  EXPECT_EQ(name_problem("../any", kNone), "");
}

TEST(Cores, AreThoseOfTheAffinityWithinTheQuotaOfEveryGroup) {
  const int64_t own = own_cores();
  struct Case {
    std::map<std::string, std::string> files;
    int64_t cores;
  };
  const std::vector<Case> cases = {
      {{}, own},
      // the second version: of the group, or of one above it
      {{{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "100000 100000\n"}}, 1},
      {{{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "max 100000\n"}}, own},
      {{{"proc/self/cgroup", "0::/a/b\n"},
        {"sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
        {"sys/fs/cgroup/a/cpu.max", "50000 100000\n"}},
       1},
      {{{"proc/self/cgroup", "0::/a\n"}, {"sys/fs/cgroup/a/cpu.max", "100000000 100000\n"}}, own},
      // the first: its group as the host sees it, mounted at the root
      {{{"proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/docker/7f\n0::/x\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}},
       1},
      {{{"proc/self/cgroup", "4:cpu:/\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}},
       own}};
  for (const auto& c : cases) {
    Scratch scratch;
    for (const auto& [name, text] : c.files) {
      const std::string path = scratch.path() + "/" + name;
      std::filesystem::create_directories(std::filesystem::path(path).parent_path());
      std::ofstream(path) << text;
    }
    EXPECT_EQ(usable_cores(scratch.path()), c.cores) << c.files.size();
  }
}

struct ToyFields {
  double rate = 0.1;
  int64_t count = 3;
  std::optional<int64_t> limit;
  static Section section() {
    Declare<ToyFields> d("toy", "For this test.");
    d.field("rate", &ToyFields::rate, "A rate.").above(0);
    d.field("count", &ToyFields::count, "A count.");
    d.field("limit", &ToyFields::limit, "A limit.");
    return d.section();
  }
};

TEST(Fields, FixedValuesReachTheMembersAndDefaultsStay) {
  FixedFields source({{"toy.rate", 0.5}, {"toy.limit", int64_t{9}}, {"other.count", int64_t{8}}});
  auto toy = source.get<ToyFields>();
  EXPECT_EQ(toy.rate, 0.5);
  EXPECT_EQ(toy.count, 3);
  EXPECT_EQ(toy.limit, 9);
  Section section = ToyFields::section();
  EXPECT_EQ(std::get<double>(section.fields[0].default_value), 0.1);
  EXPECT_TRUE(section.fields[2].nullable);
}

TEST(Device, StampNamesVersionsCompilerAndNumerics) {
  for (const char* part : {"lehr ", "LibTorch 2.", "numerics "})
    EXPECT_NE(build_stamp().find(part), std::string::npos) << build_stamp();
}

TEST(Device, WhatIsMissingIsSaid) {
  std::string why;
  bool present = gpu_present(&why);
  EXPECT_EQ(present, why.empty());
  setenv("LEHR_CUDA_LIBRARY", "/nowhere/liblehr_cuda.so", 1);
  EXPECT_EQ(cuda_library_path(), "");
  std::string message = message_of([] { load_cuda(); });
  EXPECT_NE(message.find("/nowhere/liblehr_cuda.so"), std::string::npos) << message;
  Scratch scratch;
  write_file_durably(scratch / "liblehr_cuda.so", "not a library");
  setenv("LEHR_CUDA_LIBRARY", (scratch / "liblehr_cuda.so").c_str(), 1);
  EXPECT_NE(message_of([] { load_cuda(); }).find("does not load"), std::string::npos);
  unsetenv("LEHR_CUDA_LIBRARY");
}

// Each rank of a node sees one GPU, as its number 0; a launcher that gave it one is left to it.
TEST(Device, EachRankSeesItsOwnGpu) {
  constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";
  const char* before = std::getenv(kVisible);
  const std::string kept = before ? before : "";
  const auto seen = [&](const char* listed, int rank, int ranks) -> std::string {
    listed ? ::setenv(kVisible, listed, 1) : ::unsetenv(kVisible);
    see_own_gpu(rank, ranks);
    const char* now = std::getenv(kVisible);
    return now ? now : "all";
  };
  EXPECT_EQ(seen(nullptr, 3, 4), "3");
  EXPECT_EQ(seen("4,5,6,7", 2, 4), "6");
  EXPECT_EQ(seen("GPU-1a,GPU-2b", 1, 2), "GPU-2b");
  EXPECT_EQ(seen("5", 1, 2), "5");  // bound by the launcher
  EXPECT_EQ(seen(nullptr, 0, 1), "all");
  EXPECT_EQ(seen("4,5", 0, 1), "4,5");
  EXPECT_THROW(seen("4,5", 2, 3), Error);
  before ? ::setenv(kVisible, kept.c_str(), 1) : ::unsetenv(kVisible);
}

TEST(WhatIs, NamesWhatIsNoTextWithARemedy) {
  using namespace std::string_literals;
  const std::pair<std::string, const char*> cases[] = {
      {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
      {"\xff\xfe"
       "a\0b\0"s,
       "iconv -f UTF-16"},
      {"\xfe\xff\0"
       "a\0b"s,
       "iconv -f UTF-16"},
      {"\xff\xfe\0\0"
       "a\0\0\0"s,
       "iconv -f UTF-32"},
      {"\x28\xb5\x2f\xfd...", "zstd -d"},
      {"\xfd"
       "7zXZ\0..."s,
       "xz -d"},
      {"BZh91AY&SY...", "bzip2 -d"},
      {"PK\3\4...", "Excel"},
      {"PAR1....", "CSV"},
      {"%PDF-1.7\n", "pdftotext"},
      {std::string(257, 'a') + "ustar\0", "Unpack"}};
  for (const auto& [bytes, remedy] : cases) {
    const std::string message = message_of([&] { plain_text(bytes, "some/file"); });
    EXPECT_TRUE(message.starts_with("some/file: is ")) << message;
    EXPECT_NE(message.find(remedy), std::string::npos) << message;
  }
  for (const std::string& text :
       {""s, "P"s, "PARIS is a city"s, "BZh is no word"s, "\xc3\xa9t\xc3\xa9"s, "\0\1"s})
    EXPECT_EQ(plain_text(text, "f"), text);
  EXPECT_EQ(plain_text("\xef\xbb\xbfText", "f"), "Text");
}

}  // namespace lehr
