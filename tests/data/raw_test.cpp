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

std::string bytes_of(const at::Tensor& images) {
  const at::Tensor whole = images.contiguous();
  const uint8_t* p = whole.data_ptr<uint8_t>();
  return {p, p + whole.numel()};
}

TEST(Raw, ReadsImagesOfSeveralFilesInOrderAndTellsThemByContent) {
  TempFolder folder;
  const std::string pixels = noise(5 * 4 * 3);
  const auto a = folder.write("a.csv", gzip(idx({2, 4, 3}, pixels.substr(0, 24))));
  const auto b = folder.write("b.jpg", npy("|u1", "(3, 4, 3, 1)", pixels.substr(24)));
  const auto c = folder.write("c.npy", png_of(4, 3, pixels.substr(0, 12)));
  const RawImages raw({a, b, c}, {4, 3, 1, 0});
  ASSERT_EQ(raw.size(), 6);
  EXPECT_TRUE(raw.holds_pictures());
  EXPECT_FALSE(raw.targets().defined());
  EXPECT_EQ(raw.file(1), a);
  EXPECT_EQ(raw.file(2), b);
  EXPECT_EQ(raw.file(5), c);
  ASSERT_EQ(raw.read(0, 6).sizes(), (at::IntArrayRef{6, 4, 3}));
  EXPECT_EQ(bytes_of(raw.read(0, 6)), pixels + pixels.substr(0, 12));
  EXPECT_EQ(bytes_of(raw.read(1, 3)), pixels.substr(12, 24));
  const auto error = [](const std::vector<std::string>& files, const View& view) {
    return error_of([&] { RawImages(files, view).read(0, 1); });
  };
  EXPECT_TRUE(holds(error({a}, {4, 4, 1, 0}).what(), "The model takes [4, 4, 1]"));
  EXPECT_TRUE(holds(error({folder.write("t", "a,b\n")}, {4, 4, 1, 0}).what(), "neither images"));
  EXPECT_TRUE(holds(error({folder.write("u", "GIF89a")}, {4, 4, 1, 0}).what(), "a GIF picture"));
  EXPECT_TRUE(holds(error({c}, {4, 4, 1, 0}).what(), "trained on arrays of 4 x 4"));
  EXPECT_TRUE(holds(error({c}, {4, 3, 4, 0}).what(), "the model takes 4"));
}

TEST(Raw, TakesTargetsFromClassFoldersAndPicturesAtAnyDepthWithoutThem) {
  TempFolder folder;
  folder.write("set/no/1.png", png_of(4, 4, noise(16)));
  folder.write("set/yes/1.png", png_of(8, 6, noise(48)));
  const View view{4, 4, 1, 4};
  const RawImages raw({folder.path("set")}, view, {"yes", "no"});
  EXPECT_EQ(raw.read(0, 2).sizes(), (at::IntArrayRef{2, 4, 4}));
  EXPECT_TRUE(at::equal(raw.targets(), at::tensor({int64_t{1}, int64_t{0}})));
  EXPECT_TRUE(holds(error_of([&] {
                      RawImages({folder.path("set")}, view, {"a", "b"});
                    }).what(),
                    "none of the model's classes"));
  // five beside a folder with more are all of them
  for (int i = 0; i < 5; ++i)
    folder.write("set/" + std::to_string(i) + ".png", png_of(4, 4, noise(16, i)));
  folder.write("set/.ipynb_checkpoints/0.png", png_of(4, 4, noise(16)));
  const RawImages all({folder.path("set")}, view);
  ASSERT_EQ(all.size(), 7);
  EXPECT_EQ(all.file(0), folder.path("set/0.png"));
  EXPECT_EQ(all.file(5), folder.path("set/no/1.png"));
  EXPECT_FALSE(all.targets().defined());
  EXPECT_EQ(all.passed_over(), (StringList{"1 passed over, hidden names (.ipynb_checkpoints)"}));
}

TEST(Raw, LeavesOutBadPicturesWhereItMay) {
  TempFolder folder;
  const std::string good = png_of(2, 2, "abcd");
  const auto a = folder.write("a.png", good), b = folder.write("b.png", good.substr(0, 40)),
             c = folder.write("c.png", png_of(2, 2, "efgh"));
  const RawImages raw({a, b, c}, {2, 2, 1, 0});
  EXPECT_EQ(error_of([&] { raw.read(0, 3); }).where(), b + " at byte 40");
  std::vector<int64_t> left_out;
  const at::Tensor images =
      raw.read(0, 3, [&](int64_t image, const BadPicture&) { left_out.push_back(image); });
  EXPECT_EQ(left_out, (std::vector<int64_t>{1}));
  EXPECT_EQ(bytes_of(images), "abcdefgh");
  // a file that is gone is not bad: elsewhere, or later, it may be there
  std::filesystem::remove(c);
  EXPECT_TRUE(holds(error_of([&] { raw.read(0, 3, [](auto...) {}); }).what(), "is missing"));
}

TEST(Raw, ReadsTablesByColumnName) {
  TempFolder folder;
  const auto path = folder.write("t.csv", "city,y,x\nUlm,yes,1\n,no,\n");
  const auto read_all = [](const std::string& file, const RawColumns& columns) {
    return RawTable(file, columns).read(INT64_MAX);
  };
  RawBatch raw = read_all(path, {{"x"}, {"city"}, "y", {"no", "yes"}});
  EXPECT_EQ(raw.numbers[0][0].item<double>(), 1);
  EXPECT_TRUE(std::isnan(raw.numbers[1][0].item<double>()));
  EXPECT_EQ(raw.strings, (std::vector<StringList>{{"Ulm"}, {""}}));
  EXPECT_TRUE(at::equal(raw.targets, at::tensor({int64_t{1}, int64_t{0}})));
  raw = read_all(path, {{"x"}, {}});
  EXPECT_FALSE(raw.targets.defined());
  EXPECT_EQ(raw.strings.size(), 2u);
  raw = read_all(folder.write("v.csv", "x;y\n-;2.5\n"), {{"x"}, {}, "y", {}, ";", {"-"}});
  EXPECT_TRUE(std::isnan(raw.numbers.item<double>()));
  EXPECT_TRUE(at::equal(raw.targets, at::tensor({2.5f}).view({1, 1})));
  EXPECT_TRUE(
      at::equal(read_targets(folder.write("l", idx({2}, std::string("\1\0", 2))), {"a", "b"}),
                at::tensor({int64_t{1}, int64_t{0}})));
}

}  // namespace
}  // namespace lehr::data
