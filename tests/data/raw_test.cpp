#include "engine/data/raw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <png.h>

#include "tests/data/files.h"

namespace lehr::data {
namespace {

std::string png_of(int height, int width, const std::string& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width, image.height = height, image.format = PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
  std::string out(size, '\0');
  png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, nullptr);
  return out;
}

TEST(Raw, TellsFilesByContentNotByName) {
  TempFolder folder;
  EXPECT_EQ(raw_kind(folder.write("a.csv", gzip(idx({1, 1, 1}, "a")))), RawKind::kArray);
  EXPECT_EQ(raw_kind(folder.write("b.csv", npy("|u1", "(1,)", "a"))), RawKind::kArray);
  EXPECT_EQ(raw_kind(folder.write("c.csv", png_of(1, 1, "a"))), RawKind::kPicture);
  EXPECT_EQ(raw_kind(folder.write("d.npy", "a,b\n1,2\n")), RawKind::kTable);
  EXPECT_EQ(raw_kind(folder.path()), RawKind::kFolder);
  EXPECT_EQ(error_of([&] { raw_kind(folder.path("nowhere")); }).code(), Code::kData);
}

TEST(Raw, ReadsImagesOfSeveralFilesInOrder) {
  TempFolder folder;
  const std::string pixels = noise(5 * 4 * 3);
  const auto a = folder.write("a", idx({2, 4, 3}, pixels.substr(0, 24)));
  const auto b = folder.write("b", npy("|u1", "(3, 4, 3, 1)", pixels.substr(24)));
  const auto c = folder.write("c", png_of(4, 3, pixels.substr(0, 12)));
  const RawBatch raw = read_raw_images({a, b, c}, {1, 4, 3, 0});
  ASSERT_EQ(raw.images.sizes(), (at::IntArrayRef{6, 4, 3}));
  const uint8_t* p = raw.images.data_ptr<uint8_t>();
  EXPECT_EQ(std::string(p, p + 60), pixels);
  EXPECT_EQ(std::string(p + 60, p + 72), pixels.substr(0, 12));
  EXPECT_TRUE(holds(error_of([&] {
                      read_raw_images({a}, {1, 4, 4, 0});
                    }).what(),
                    "The model takes [4, 4, 1]"));
  EXPECT_TRUE(holds(error_of([&] { read_raw_images({folder.write("t", "a,b\n")}); }).what(),
                    "neither images"));
}

TEST(Raw, TakesTargetsFromClassFolders) {
  TempFolder folder;
  folder.write("set/no/1.png", png_of(4, 4, noise(16)));
  folder.write("set/yes/1.png", png_of(8, 6, noise(48)));
  const RawBatch raw = read_raw_images({folder.path("set")}, {1, 4, 4, 4}, {"yes", "no"});
  EXPECT_EQ(raw.images.sizes(), (at::IntArrayRef{2, 4, 4}));
  EXPECT_TRUE(at::equal(raw.targets, at::tensor({int64_t{1}, int64_t{0}})));
  EXPECT_FALSE(read_raw_images({folder.path("set")}, {1, 4, 4, 4}).targets.defined());
  EXPECT_TRUE(holds(error_of([&] {
                      read_raw_images({folder.path("set")}, {1, 4, 4, 4}, {"a", "b"});
                    }).what(),
                    "none of the model's classes"));
}

TEST(Raw, ReadsTablesByColumnName) {
  TempFolder folder;
  const auto path = folder.write("t.csv", "city,y,x\nUlm,yes,1\n,no,\n");
  RawBatch raw = read_raw_table(path, {"x"}, {"city"}, "y", {"no", "yes"});
  EXPECT_EQ(raw.numbers[0][0].item<double>(), 1);
  EXPECT_TRUE(std::isnan(raw.numbers[1][0].item<double>()));
  EXPECT_EQ(raw.strings, (std::vector<StringList>{{"Ulm"}, {""}}));
  EXPECT_TRUE(at::equal(raw.targets, at::tensor({int64_t{1}, int64_t{0}})));
  raw = read_raw_table(path, {"x"}, {});
  EXPECT_FALSE(raw.targets.defined());
  EXPECT_EQ(raw.strings.size(), 2u);
  raw = read_raw_table(folder.write("v.csv", "x;y\n1;2.5\n"), {"x"}, {}, "y", {}, ";");
  EXPECT_TRUE(at::equal(raw.targets, at::tensor({2.5f}).view({1, 1})));
  EXPECT_TRUE(
      at::equal(read_targets(folder.write("l", idx({2}, std::string("\1\0", 2))), {"a", "b"}),
                at::tensor({int64_t{1}, int64_t{0}})));
}

}  // namespace
}  // namespace lehr::data
