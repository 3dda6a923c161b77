// Picture files: decoded and scaled as Pillow does, damage named, folders as data sets.
#include "engine/data/picture.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <cstring>
#include <set>

#include "engine/data/array.h"
#include "engine/data/dataset.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

// what Pillow and numpy wrote, once for all tests
const TempFolder* peer() {
  static const TempFolder* folder = [] {
    const std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
    auto* made = new TempFolder;
    const std::string command =
        python + " " LEHR_SOURCE_DIR "/tests/data/pictures.py " + made->path();
    if (std::filesystem::exists(python) && std::system(command.c_str()) == 0) return made;
    delete made;
    return static_cast<TempFolder*>(nullptr);
  }();
  return folder;
}
#define NEEDS_PEER() \
  if (!peer()) GTEST_SKIP() << "skipped: no Pillow in .deps/venv (scripts/setup installs it)"

Picture decoded(const std::string& path, int channels = 3) {
  const Bytes file = read_bytes(path);
  return decode(path, file.begin(), file.size, channels);
}

Picture decoded_bytes(const std::string& name, const std::string& content) {
  return decode(name, reinterpret_cast<const uint8_t*>(content.data()), content.size(), 3);
}

testing::AssertionResult same_as(const Picture& picture, const std::string& npy_name) {
  const Array array = read_array(peer()->path(npy_name + ".npy"));
  if (array.shape[1] != picture.height || array.shape[2] != picture.width)
    return testing::AssertionFailure() << picture.height << " x " << picture.width;
  if (array.count() != static_cast<int64_t>(picture.pixels.size()))
    return testing::AssertionFailure() << "channels";
  int worst = 0;
  for (size_t i = 0; i < picture.pixels.size(); ++i)
    worst = std::max(worst, std::abs(picture.pixels[i] - array.data()[i]));
  return worst == 0 ? testing::AssertionSuccess()
                    : testing::AssertionFailure() << "differs by up to " << worst;
}

std::string png_of(int height, int width, int channels, const std::string& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width, image.height = height;
  image.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
  std::string out(size, '\0');
  png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, nullptr);
  return out;
}

TEST(Picture, DecodesAsPillowDoes) {
  NEEDS_PEER();
  for (const char* name :
       {"rgb.png", "grey.png", "palette.png", "colour.jpg", "luma.jpg", "progressive.jpg"})
    EXPECT_TRUE(same_as(decoded(peer()->path(name)), name)) << name;
  EXPECT_TRUE(same_as(decoded(peer()->path("rgb.png"), 1), "rgb_as_luma"));
  EXPECT_TRUE(same_as(decoded(peer()->path("colour.jpg"), 1), "colour_as_luma"));
}

// All colour types and depths of PNG, whatever gamma, profile or key stands beside the samples;
// JPEGs of inks, and odd ones whose pixels are whole.
TEST(Picture, GivesPillowsBytesForEveryKindOfFile) {
  NEEDS_PEER();
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(peer()->path())) {
    const std::string name = entry.path().filename();
    if (!(name.starts_with("suite_") && name.ends_with(".png")) &&
        !(name.starts_with("odd_") && name.ends_with(".jpg")))
      continue;
    ++seen;
    EXPECT_TRUE(same_as(decoded(entry.path(), 3), name + ".rgb")) << name;
    EXPECT_TRUE(same_as(decoded(entry.path(), 1), name + ".grey")) << name;
    const Bytes file = read_bytes(entry.path());
    const Picture header = picture_size(name, file.begin(), file.size);
    EXPECT_EQ(header.channels, name.starts_with("suite_0") || name.starts_with("suite_4") ? 1 : 3);
  }
  EXPECT_EQ(seen, 64 + 9);
}

TEST(Picture, ReadsAPngWithAChunkThatIsLargerThanLibpngTakes) {
  const std::string small = png_of(2, 3, 1, "abcdef"),
                    text = "tEXtComment" + std::string(9000000, 'x');
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
  const std::string chunk = big_endian(text.size() - 4) + text + big_endian(crc);
  const std::string large = small.substr(0, 33) + chunk + small.substr(33);
  EXPECT_EQ(decoded_bytes("large.png", large).pixels, decoded_bytes("small.png", small).pixels);
}

// A name is no proof: what the file is, and what to do, is said.
TEST(Picture, NamesWhatAFileIsInstead) {
  struct {
    const char *bytes, *what, *hint;
  } const cases[] = {
      {"RIFF\1\2\3\4WEBPVP8 ", "a WebP picture, no JPEG or PNG", "Convert it"},
      {"GIF89a", "a GIF picture", "Convert it"},
      {"II*", "neither a JPEG nor a PNG", ""},  // too short for a TIFF's four bytes
      {"....ftypheic", "a HEIC picture", "Convert it"},
      {"....ftypavif", "an AVIF picture", "Convert it"},
      {"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"},
      {"<!DOCTYPE html>", "a web page", "fetch it again"},
      {"", "the file is empty", ""},
      {"hello", "neither a JPEG nor a PNG", ""},
  };
  for (const auto& c : cases) {
    const Error error = error_of([&] { decoded_bytes("x.jpg", c.bytes); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_EQ(error.where(), "x.jpg at byte 0");
    EXPECT_TRUE(holds(error.message(), c.what)) << error.what();
    EXPECT_TRUE(holds(error.hint(), c.hint)) << error.what();
  }
}

TEST(Picture, NamesAKindOfJpegThatIsNotRead) {
  NEEDS_PEER();
  const Error twelve = error_of([] { decoded(peer()->path("twelve.jpg")); });
  EXPECT_TRUE(holds(twelve.message(), "a kind that is not read")) << twelve.what();
}

TEST(Picture, ScalesWithPillowsBytes) {
  NEEDS_PEER();
  const Picture rgb = decoded(peer()->path("rgb.png"));
  for (auto [width, height] :
       {std::pair{28, 28}, {83, 20}, {20, 61}, {200, 150}, {1, 1}, {97, 31}}) {
    Picture out{height, width, 3, std::vector<uint8_t>(height * width * 3)};
    resize(rgb, {0, 0, rgb.height, rgb.width}, height, width, out.pixels.data());
    EXPECT_TRUE(same_as(out, "resize_" + std::to_string(width) + "x" + std::to_string(height)))
        << width;
  }
  EXPECT_TRUE(same_as(load_view(peer()->path("rgb.png"), {28, 28, 3, 32}), "centre"));
}

TEST(Picture, ReadsEveryNpyVersionOfNumpyButNotFortranOrder) {
  NEEDS_PEER();
  const Array wide = read_array(peer()->path("v2.npy"));
  EXPECT_EQ(wide.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(wide.data()[5 * 8], 5);
  EXPECT_TRUE(
      at::equal(targets_of(read_array(peer()->path("v3.npy")), 6), at::arange(6, at::kLong)));
  EXPECT_TRUE(
      holds(error_of([] { read_array(peer()->path("fortran.npy")); }).what(), "Fortran order"));
}

TEST(Picture, ShrinksAJpegWhileDecodingButStaysNearTheWhole) {
  NEEDS_PEER();
  const Bytes file = read_bytes(peer()->path("colour.jpg"));
  const Picture half = decode(file.path, file.begin(), file.size, 3, 2),
                whole = decode(file.path, file.begin(), file.size, 3);
  EXPECT_EQ(half.height, 31);
  EXPECT_EQ(half.width, 42);
  double sum_half = 0, sum_whole = 0;
  for (uint8_t v : half.pixels) sum_half += v;
  for (uint8_t v : whole.pixels) sum_whole += v;
  EXPECT_NEAR(sum_half / half.pixels.size(), sum_whole / whole.pixels.size(), 3);
  EXPECT_EQ(shrink_for({0, 0, 3000, 4000}, 224, 224), 4);
  EXPECT_EQ(shrink_for({0, 0, 375, 500}, 224, 224), 1);
}

TEST(Picture, RefusesWhatWouldNotFitIntoMemoryOnceScaled) {
  TempFolder folder;
  const std::string path = folder.write("long.png", png_of(1, 3000, 1, noise(3000)));
  EXPECT_EQ(load_view(path, {8, 8, 3, 8}).pixels.size(), 8u * 8 * 3);
  const Error error = error_of([&] { load_view(path, {1000, 1000, 3, 1000}); });
  EXPECT_TRUE(holds(error.message(), "1 x 3000, too narrow")) << error.what();
  // of arrays nobody knows how they were scaled
  EXPECT_TRUE(holds(error_of([&] {
                      load_view(path, {28, 28, 1, 0});
                    }).message(),
                    "arrays of 28 x 28"));
  EXPECT_EQ(load_view(path, {1, 3000, 1, 0}).pixels.size(), 3000u);
}

TEST(Picture, NamesFileAndByteOfEveryDamagedPng) {
  const std::string good = png_of(9, 7, 3, noise(9 * 7 * 3));
  EXPECT_EQ(decoded_bytes("good.png", good).pixels.size(), 9u * 7 * 3);
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] ^= 0x04;
    const Error error = error_of([&] { decoded_bytes("bad.png", bad); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_TRUE(holds(error.where(), "bad.png at byte ")) << at << ": " << error.what();
    const Error cut = error_of([&] { decoded_bytes("cut.png", good.substr(0, at)); });
    EXPECT_EQ(cut.where(), "cut.png at byte " + std::to_string(at < 8 ? 0 : at)) << cut.what();
  }
}

TEST(Picture, NamesFileAndByteOfACutJpeg) {
  NEEDS_PEER();
  const std::string good = read_text(peer()->path("colour.jpg"));
  for (size_t cut = 0; cut + 2 < good.size(); cut += 37) {
    const Error error = error_of([&] { decoded_bytes("cut.jpg", good.substr(0, cut)); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_TRUE(holds(error.where(), "cut.jpg at byte ")) << error.what();
    EXPECT_LE(std::stoull(error.where().substr(error.where().rfind(' ') + 1)), cut);
  }
}

TEST(Picture, NeverCrashesOnADamagedJpeg) {
  NEEDS_PEER();
  const std::string good = read_text(peer()->path("progressive.jpg"));
  Random random(3, Stream::kTest, 0);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string bad = good;
    for (int k = 0; k < 3; ++k) bad[random.below(bad.size())] = static_cast<char>(random.bits());
    try {
      decode("bad", reinterpret_cast<const uint8_t*>(bad.data()), bad.size(), 3);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kData);
      ++refused;
    }
  }
  EXPECT_TRUE(refused > 0 && refused < 300) << refused;
}

class Folder : public testing::Test {
 protected:
  // two classes of 30 pictures of various sizes, and files that are no pictures
  void SetUp() override {
    for (int i = 0; i < 60; ++i) {
      const int height = 20 + i % 7, width = 24 + i % 5;
      folder.write(
          std::string("train/") + (i % 2 ? "cat" : "dog") + "/" + std::to_string(i) + ".png",
          png_of(height, width, 3, noise(height * width * 3, i + 1)));
    }
    folder.write("train/cat/notes.txt", "no picture");
    folder.write("train/.hidden", "no picture");
  }
  FixedFields fields() {
    return FixedFields({{"data.source", std::string("image_folder")},
                        {"data.train_folder", folder.path("train")},
                        {"data.image_size", int64_t{16}},
                        {"data.validation_fraction", 0.2}});
  }
  static Batch filled(const Dataset& set, Split split, std::vector<int64_t> samples, bool augment,
                      int64_t epoch = 0) {
    Batch batch = set.allocate(samples.size());
    set.fill(split, samples.data(), 0, samples.size(), augment, 1, epoch, batch);
    return batch;
  }
  TempFolder folder;
};

TEST_F(Folder, IsADataSetOfOneClassPerSubFolder) {
  auto set = open_dataset(fields());
  EXPECT_EQ(set->info().classes, (StringList{"cat", "dog"}));
  EXPECT_EQ(set->info().height, 16);
  EXPECT_EQ(set->info().channels, 3);
  EXPECT_EQ(set->info().resize, 16);
  EXPECT_EQ(set->size(Split::kTrain) + set->size(Split::kValidation), 60);
  EXPECT_GT(set->size(Split::kValidation), 3);
  EXPECT_EQ(set->size(Split::kTest), 0);
  EXPECT_TRUE(holds(
      set->remarks().back(),
      "validation: " + std::to_string(set->size(Split::kValidation)) + " images of 2 classes"))
      << set->remarks().back();
  const RawBatch raw = set->raw(Split::kTrain, {0, 1});
  EXPECT_EQ(raw.images.sizes(), (at::IntArrayRef{2, 16, 16, 3}));
  const Batch batch = filled(*set, Split::kTrain, {0, 1}, false);
  const auto script = set->preprocessing();
  const auto x = raw.images.permute({0, 3, 1, 2}).to(at::kFloat) * script.buffers[0].second +
                 script.buffers[1].second;
  EXPECT_TRUE(at::equal(batch.inputs, x));
}

TEST_F(Folder, CropsAtRandomByTheKeyAlone) {
  auto source = fields();
  source.set("data.augment.random_resized_crop", 0.2).set("data.augment.flip", 0.5);
  auto set = open_dataset(source);
  const Batch one = filled(*set, Split::kTrain, {0, 1, 2, 3}, true);
  EXPECT_TRUE(
      at::equal(filled(*set, Split::kTrain, {3, 2, 1, 0}, true).inputs.flip({0}), one.inputs));
  EXPECT_FALSE(at::equal(filled(*set, Split::kTrain, {0, 1, 2, 3}, true, 1).inputs, one.inputs));
  EXPECT_FALSE(at::equal(filled(*set, Split::kTrain, {0, 1, 2, 3}, false).inputs, one.inputs));
}

TEST_F(Folder, KeepsValidationWhenPicturesAreAdded) {
  auto images_of = [](const Dataset& set) {
    std::set<std::string> images;
    std::vector<int64_t> all(set.size(Split::kValidation));
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    const auto raw = set.raw(Split::kValidation, all).images;
    for (size_t i = 0; i < all.size(); ++i) {
      const uint8_t* p = raw[i].data_ptr<uint8_t>();
      images.insert(std::string(p, p + 16 * 16 * 3));
    }
    return images;
  };
  auto before = open_dataset(fields());
  for (int i = 0; i < 20; ++i)
    folder.write("train/cat/a" + std::to_string(i) + ".png",
                 png_of(20, 20, 3, noise(1200, 100 + i)));
  auto after = open_dataset(fields());
  EXPECT_NE(before->info().fingerprint, after->info().fingerprint);
  const auto old_images = images_of(*before), new_images = images_of(*after);
  for (const auto& image : old_images) EXPECT_TRUE(new_images.count(image));
}

TEST_F(Folder, NamesADamagedPictureWhenItIsLoaded) {
  folder.write("train/cat/1.png", read_text(folder.path("train/cat/1.png")).substr(0, 100));
  auto source = fields();
  source.set("data.validation_fraction", 0.0);
  const Error error = error_of([&] { open_dataset(source); });
  EXPECT_EQ(error.where(), folder.path("train/cat/1.png") + " at byte 100");
  source.set("data.train_folder", folder.path("nowhere")).set("data.name", std::string("pets"));
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).hint(), "scripts/data pets"));
  folder.write("empty/readme.txt", "");
  source.set("data.train_folder", folder.path("empty"));
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).what(), "no JPEG or PNG pictures"));
}

// What lies in a folder beside class folders of PNGs, and what is said of it.
TEST_F(Folder, SaysWhatItPassesOverAndTakesAllThatItCanRead) {
  const std::string picture = png_of(20, 20, 3, noise(1200, 77));
  const std::string webp("RIFF\1\2\3\4WEBPVP8 ", 16);
  const auto write = [&](const char* name, const std::string& content) {
    folder.write(std::string("train/") + name, content);
  };
  const auto remarks = [&] {
    const auto set = open_dataset(fields());
    std::string all;
    for (const auto& line : set->remarks()) all += line + "\n";
    return std::pair{set->size(Split::kTrain) + set->size(Split::kValidation), all};
  };
  const auto [before, nothing] = remarks();
  EXPECT_EQ(before, 60);
  EXPECT_TRUE(holds(nothing, "1 passed over, hidden names (.hidden)")) << nothing;
  EXPECT_TRUE(holds(nothing, "1 passed over, no pictures by their names (cat/notes.txt)"))
      << nothing;
  // taken: under other names, at any depth, through links
  write("cat/a.jfif", picture), write("cat/b.webp", picture), write("cat/without", picture);
  write("dog/deep/er/c.PNG", picture);
  folder.write("pool/1.png", picture), folder.write("pool/2.png", picture);
  std::filesystem::create_directory_symlink("../../pool", folder.path("train/dog/more"));
  // passed over
  write(".ipynb_checkpoints/1.png", picture), write("__MACOSX/cat/1.png", picture);
  write("cat/._1.png", "notes of macOS"), write("dog/Thumbs.db", "x"), write("loose.png", picture);
  for (const char* name : {"cat/1.webp", "cat/2.webp", "dog/3.webp", "dog/4.webp"})
    write(name, webp);
  write("cat/x.gif", "GIF89a"), write("cat/y.tga", "no magic");
  std::filesystem::create_directory_symlink("..", folder.path("train/cat/back"));
  std::filesystem::create_symlink("nowhere.png", folder.path("train/cat/gone.png"));
  const auto [taken, said] = remarks();
  EXPECT_EQ(taken, 66) << said;
  for (const char* part :
       {"3 passed over, hidden names (.hidden, .ipynb_checkpoints, cat/._1.png)",
        "2 passed over, left behind by systems (__MACOSX, dog/Thumbs.db)",
        "1 passed over, pictures beside the class folders (loose.png)",
        "4 passed over, each a WebP picture (cat/1.webp, cat/2.webp, dog/3.webp, ...). Convert it",
        "1 passed over, each a GIF picture (cat/x.gif)",
        "1 passed over, no JPEG or PNG (cat/y.tga)", "2 classes",
        "EXIF orientation is not applied"})
    EXPECT_TRUE(holds(said, part)) << part << "\n" << said;
  EXPECT_TRUE(holds(said, "links that lead nowhere (cat/gone.png)")) << said;
  EXPECT_TRUE(holds(said, "links back to a folder above them (cat/back)")) << said;
}

TEST_F(Folder, NamesAClassWithoutPicturesAndAFolderWithoutClasses) {
  auto source = fields();
  const auto error = [&] { return error_of([&] { open_dataset(source); }); };
  folder.write("train/bird/1.webp", std::string("RIFF\1\2\3\4WEBPVP8 ", 16));
  std::filesystem::create_directory(folder.path("train/fish"));
  EXPECT_TRUE(holds(error().message(), "in its class folders bird, fish\n")) << error().what();
  EXPECT_TRUE(holds(error().message(), "each a WebP picture (bird/1.webp)")) << error().what();
  source.set("data.train_folder", folder.path("train/cat"));
  EXPECT_TRUE(holds(error().message(), "its 30 pictures lie in no class folder")) << error().what();
  EXPECT_TRUE(holds(error().hint(), "Give each class a sub-folder")) << error().what();
  std::filesystem::remove_all(folder.path("train/bird"));
  std::filesystem::remove_all(folder.path("train/fish"));
  source.set("data.train_folder", folder.path());
  EXPECT_TRUE(holds(error().message(), "there is but one class, 'train'")) << error().what();
}

TEST_F(Folder, LeavesOutBadPicturesUpToALimitAndSaysWhich) {
  auto source = fields();
  source.set("data.validation_fraction", 0.0);
  const auto clean = open_dataset(source);
  const RawBatch others = clean->raw(Split::kTrain, {0, 2, 4});
  const auto damage = [&](const char* name) {
    folder.write(name, read_text(folder.path(name)).substr(0, 100));
  };
  damage("train/cat/11.png"), damage("train/dog/0.png");  // the 2nd cat by name, the 1st dog
  const Error stops = error_of([&] { open_dataset(source); });
  EXPECT_TRUE(holds(stops.hint(), "data.bad_samples: skip")) << stops.what();
  source.set("data.bad_samples", std::string("skip"));
  const auto set = open_dataset(source);
  EXPECT_EQ(set->size(Split::kTrain), 60);  // they keep their numbers
  EXPECT_TRUE(holds(set->statistics(), "\"images_measured\": 58"));
  const Batch batch = filled(*set, Split::kTrain, {0, 1, 2, 30, 4}, true);
  EXPECT_EQ(batch.samples, (std::vector<int64_t>{0, kLeftOut, 2, kLeftOut, 4}));
  EXPECT_TRUE(at::equal(set->raw(Split::kTrain, {0, 2, 4}).images, others.images));
  const StringList left_out = set->left_out();
  ASSERT_EQ(left_out.size(), 2u);  // each once, however often it came up
  EXPECT_EQ(left_out[0].substr(0, 7 + folder.path().size()), "train: " + folder.path());
  EXPECT_TRUE(holds(left_out[0], "train/cat/11.png at byte 100: the PNG is cut short"));
  EXPECT_TRUE(holds(left_out[1], "train/dog/0.png at byte 100"));
  source.set("data.max_bad_samples", int64_t{1});
  const Error many = error_of([&] { open_dataset(source); });
  EXPECT_TRUE(holds(many.message(), "2 bad samples")) << many.what();
  EXPECT_EQ(many.where(), "data.max_bad_samples");
  // a file that cannot be read at all is no bad sample
  source.set("data.max_bad_samples", int64_t{10});
  const auto again = open_dataset(source);
  std::filesystem::remove(folder.path("train/cat/1.png"));
  EXPECT_TRUE(
      holds(error_of([&] { filled(*again, Split::kTrain, {0}, false); }).what(), "is missing"));
}

TEST_F(Folder, RefusesAClassThatTrainingDoesNotKnow) {
  folder.write("test/bird/1.png", png_of(20, 20, 3, noise(1200)));
  auto source = fields();
  source.set("data.test_folder", folder.path("test"));
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(source); }).what(), "'bird' is none of the 2 classes"));
}

}  // namespace
}  // namespace lehr::data
