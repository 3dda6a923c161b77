// IDX and npy images: reading, refusing, splitting, normalising, augmenting.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "engine/data/array.h"
#include "engine/data/dataset.h"
#include "engine/data/pixels.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

std::vector<int64_t> first(int64_t n) {
  std::vector<int64_t> samples(n);
  for (int64_t i = 0; i < n; ++i) samples[i] = i;
  return samples;
}

Batch filled(const Dataset& set, Split split, const std::vector<int64_t>& samples,
             bool augment = false, uint64_t seed = 0, int64_t epoch = 0) {
  Batch batch = set.allocate(samples.size());
  set.fill(split, samples.data(), 0, samples.size(), augment, seed, epoch, batch);
  return batch;
}

class Arrays : public testing::Test {
 protected:
  // 200 images of 6 x 5
  FixedFields fields(int channels = 1) {
    std::vector<uint32_t> shape{200, 6, 5};
    if (channels > 1) shape.push_back(channels);
    return FixedFields(
        {{"data.train_images", folder.write("images", idx(shape, noise(200 * 30 * channels)))},
         {"data.train_labels", folder.write("labels", idx({200}, label_bytes(200, 4)))}});
  }
  TempFolder folder;
};

TEST_F(Arrays, ReadIdxPlainOrGzippedAlike) {
  const std::string text = idx({3, 2, 2}, "abcdefghijkl");
  for (const auto& content : {text, gzip(text)}) {
    const Array array = read_array(folder.write("file", content));
    EXPECT_EQ(array.shape, (std::vector<int64_t>{3, 2, 2}));
    EXPECT_EQ(std::string(array.data(), array.data() + 12), "abcdefghijkl");
  }
  // two gzip members in one file are one content
  const Array array =
      read_array(folder.write("two", gzip(text.substr(0, 9)) + gzip(text.substr(9))));
  EXPECT_EQ(array.count(), 12);
}

TEST_F(Arrays, NameTheByteWhereAnIdxFileIsCut) {
  const std::string text = idx({3, 2, 2}, "abcdefghijkl");
  for (size_t cut = 0; cut < text.size(); ++cut) {
    const Error error = error_of([&] { read_array(folder.write("cut", text.substr(0, cut))); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_TRUE(holds(error.where(), folder.path("cut") + " at byte ")) << error.what();
    if (cut >= 4) {
      EXPECT_TRUE(holds(error.where(), "at byte " + std::to_string(cut))) << error.what();
    }
  }
  EXPECT_TRUE(
      holds(error_of([&] { read_array(folder.write("long", text + "x")); }).where(), "at byte 28"));
}

TEST_F(Arrays, NameTheByteOfAWrongIdxHeader) {
  const std::string text = idx({3, 2, 2}, "abcdefghijkl");
  auto changed = [&](size_t at, char to) {
    std::string other = text;
    other[at] = to;
    return error_of([&] { read_array(folder.write("changed", other)); });
  };
  EXPECT_TRUE(holds(changed(0, 1).where(), "at byte 0"));
  EXPECT_TRUE(holds(changed(2, 0x0d).where(), "at byte 2"));
  EXPECT_TRUE(holds(changed(3, 9).where(), "at byte 3"));
  EXPECT_TRUE(holds(changed(4, '\x7f').what(), "promises [2130706435, 2, 2]"));
  // sizes whose product overflows do not pass as small
  const std::string huge = idx({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, "abcd");
  EXPECT_EQ(error_of([&] { read_array(folder.write("huge", huge)); }).code(), Code::kData);
}

TEST_F(Arrays, NoticeEveryDamagedByteOfAGzipFile) {
  const std::string text = gzip(idx({10, 10}, noise(100)));
  for (size_t at = 0; at < text.size(); ++at) {
    if (at >= 4 && at <= 9)
      continue;  // time, flags and system of the header say nothing of the content
    std::string other = text;
    other[at] ^= 0x11;
    const Error error = error_of([&] { read_array(folder.write("damaged.gz", other)); });
    EXPECT_TRUE(holds(error.where(), "damaged.gz at byte ")) << at;
  }
  for (size_t cut = 2; cut < text.size(); cut += 5) {
    const Error error = error_of([&] { read_array(folder.write("cut.gz", text.substr(0, cut))); });
    EXPECT_TRUE(holds(error.where(), "cut.gz at byte " + std::to_string(cut))) << error.what();
  }
  EXPECT_TRUE(holds(error_of([&] { read_array(folder.write("tail.gz", text + "tail")); }).where(),
                    "at byte"));
}

TEST_F(Arrays, ReadNpyAndRefuseWhatWouldBeMisread) {
  const Array array = read_array(folder.write("a.npy", npy("|u1", "(2, 3)", "abcdef")));
  EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::string(array.data(), array.data() + 6), "abcdef");
  auto refused = [&](const std::string& content) {
    return std::string(error_of([&] { read_array(folder.write("bad.npy", content)); }).what());
  };
  EXPECT_TRUE(holds(refused(npy("|u1", "(2, 3)", "abcdef", "True")), "ascontiguousarray"));
  EXPECT_TRUE(holds(refused(npy(">i8", "(1,)", "12345678")), "element type '>i8'"));
  EXPECT_TRUE(holds(refused(npy("|O", "(1,)", "12345678")), "element type '|O'"));
  EXPECT_TRUE(holds(refused(npy("<f2", "(1,)", "12")), "element type '<f2'"));
  EXPECT_TRUE(holds(refused(npy("|u1", "()", "a")), "single number"));
  EXPECT_TRUE(holds(refused(npy("|u1", "(2, -3)", "abcdef")), "no tuple of sizes"));
  // sizes whose product is 0 again in 64 bits
  EXPECT_TRUE(holds(refused(npy("|u1", "(4294967296, 4294967296)", "")), "the content ends here"));
  const std::string good = npy("|u1", "(2, 3)", "abcdef");
  for (size_t cut = 6; cut < good.size(); ++cut)
    EXPECT_TRUE(holds(refused(good.substr(0, cut)), "bad.npy at byte ")) << cut;
  EXPECT_TRUE(holds(refused(good + "x"), "1 bytes follow"));
  // images must be bytes
  EXPECT_TRUE(holds(error_of([&] {
                      check_images(
                          read_array(folder.write("f.npy", npy("<f4", "(1, 1, 1)", "abcd"))));
                    }).what(),
                    "astype(numpy.uint8)"));
}

TEST_F(Arrays, ReadLabelsOfAnyIntegerAndTargetsOfAnyFloat) {
  auto targets = targets_of(
      read_array(folder.write("l.npy", npy("<i4", "(2,)", std::string("\3\0\0\0\1\0\0\0", 8)))), 4);
  EXPECT_TRUE(at::equal(targets, at::tensor({int64_t{3}, int64_t{1}})));
  const double values[] = {1.5, -2};
  targets = targets_of(
      read_array(folder.write(
          "t.npy", npy("<f8", "(1, 2)", std::string(reinterpret_cast<const char*>(values), 16)))),
      0);
  EXPECT_TRUE(at::equal(targets, at::tensor({1.5f, -2.0f}).view({1, 2})));
  const Error error = error_of(
      [&] { targets_of(read_array(folder.write("l", idx({3}, std::string("\0\1\7", 3)))), 4); });
  EXPECT_TRUE(holds(error.where(), "at byte 10"));
  EXPECT_TRUE(holds(error.what(), "label 7, but there are 4 classes"));
}

TEST_F(Arrays, NameTheCommandThatFetchesAMissingSet) {
  FixedFields source({{"data.name", std::string("fashion_mnist")},
                      {"data.train_images", folder.path("nowhere")},
                      {"data.train_labels", folder.path("nowhere")}});
  const Error error = error_of([&] { open_dataset(source); });
  EXPECT_EQ(error.code(), Code::kData);
  EXPECT_EQ(error.where(), folder.path("nowhere"));
  EXPECT_TRUE(holds(error.hint(), "scripts/data fashion_mnist"));
}

TEST_F(Arrays, RefuseFilesThatDoNotBelongTogether) {
  auto source = fields();
  source.set("data.train_labels", folder.write("few", idx({199}, label_bytes(199, 4))));
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).what(), "200 images, but 199 labels"));
  source = fields();
  source.set("data.test_images", folder.path("images"));
  EXPECT_EQ(error_of([&] { open_dataset(source); }).where(), "data.test_labels");
  source = fields();
  source.set("data.test_images", folder.write("other", idx({1, 5, 6}, noise(30))));
  source.set("data.test_labels", folder.write("one", idx({1}, std::string(1, '\0'))));
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(source); }).what(), "The training images are [N, 6, 5]"));
  source = fields();
  source.set("data.classes", StringList{"a", "b", "c"});
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(source); }).what(), "label 3, but there are 3 classes"));
}

TEST_F(Arrays, KeepThreeDistinctSets) {
  auto set = open_dataset(fields());
  EXPECT_EQ(set->info().classes, (StringList{"0", "1", "2", "3"}));
  EXPECT_EQ(set->size(Split::kTest), 0);
  EXPECT_EQ(set->size(Split::kTrain) + set->size(Split::kValidation), 200);
  EXPECT_NEAR(set->size(Split::kValidation), 20, 12);
  std::set<std::string> images;
  for (Split split : {Split::kTrain, Split::kValidation}) {
    const RawBatch raw = set->raw(split, first(set->size(split)));
    ASSERT_EQ(raw.images.sizes(), (at::IntArrayRef{set->size(split), 6, 5}));
    for (int64_t i = 0; i < raw.images.size(0); ++i) {
      const uint8_t* p = raw.images[i].data_ptr<uint8_t>();
      images.insert(std::string(p, p + 30));
    }
  }
  EXPECT_EQ(images.size(), 200u);  // nobody lost, nobody twice

  // a file of its own leaves all of training to training
  auto source = fields();
  source.set("data.validation_images", folder.write("vi", idx({7, 6, 5}, noise(210, 5))));
  source.set("data.validation_labels", folder.write("vl", idx({7}, label_bytes(7, 4))));
  auto with_file = open_dataset(source);
  EXPECT_EQ(with_file->size(Split::kTrain), 200);
  EXPECT_EQ(with_file->size(Split::kValidation), 7);
  EXPECT_NE(with_file->info().fingerprint, set->info().fingerprint);
}

TEST_F(Arrays, FillWithTheBitsOfAten) {
  for (int channels : {1, 3}) {
    auto set = open_dataset(fields(channels));
    const int64_t n = set->size(Split::kTrain);
    const RawBatch raw = set->raw(Split::kTrain, first(n));
    const Preprocessing script = set->preprocessing();
    auto x = channels == 1 ? raw.images.unsqueeze(3) : raw.images;
    x = x.permute({0, 3, 1, 2}).to(at::kFloat) * script.buffers[0].second +
        script.buffers[1].second;
    const Batch batch = filled(*set, Split::kTrain, first(n));
    EXPECT_TRUE(batch.inputs.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_EQ(batch.inputs.strides(), x.strides());
    EXPECT_TRUE(at::equal(batch.inputs, x));
    EXPECT_TRUE(at::equal(batch.targets, raw.targets));
    // by default: mean 0 and deviation 1 over the training images
    EXPECT_NEAR(x.mean().item<double>(), 0, 1e-4);
    EXPECT_NEAR(x.var(at::IntArrayRef{0, 2, 3}, false).mean().item<double>(), 1, 1e-3);
    const auto statistics = nlohmann::json::parse(set->statistics());
    const auto pixels = raw.images.to(at::kDouble).div(255).reshape({-1, channels});
    for (int c = 0; c < channels; ++c) {
      EXPECT_NEAR(statistics["channels"][c]["mean"].get<double>(),
                  pixels.select(1, c).mean().item<double>(), 1e-12);
      EXPECT_NEAR(statistics["channels"][c]["std"].get<double>(),
                  pixels.select(1, c).std(false).item<double>(), 1e-12);
    }
    EXPECT_EQ(statistics["classes"]["2"].get<int64_t>(), (raw.targets == 2).sum().item<int64_t>());
  }
}

TEST_F(Arrays, NormaliseAsTheRecipeSays) {
  auto source = fields();
  source.set("data.normalize.mean", FloatList{0.5}).set("data.normalize.std", FloatList{0.25});
  auto set = open_dataset(source);
  const RawBatch raw = set->raw(Split::kTrain, {3});
  const Batch batch = filled(*set, Split::kTrain, {3});
  const auto expected = (raw.images.to(at::kDouble) / 255 - 0.5) / 0.25;
  EXPECT_TRUE(at::allclose(batch.inputs[0][0].to(at::kDouble), expected[0], 1e-6, 1e-6));
  source.set("data.normalize.mean", FloatList{0.5, 0.5});
  EXPECT_EQ(error_of([&] { open_dataset(source); }).where(), "data.normalize.mean");
}

TEST_F(Arrays, DrawAugmentationBySeedSampleAndEpochAlone) {
  auto source = fields();
  source.set("data.augment.pad_crop", int64_t{2})
      .set("data.augment.flip", 0.5)
      .set("data.augment.cutout", int64_t{3});
  auto set = open_dataset(source);
  const Batch all = filled(*set, Split::kTrain, first(50), true, 1, 2);
  // alone, in another slot, in another batch
  for (int64_t sample : {0, 7, 49}) {
    const Batch other = filled(*set, Split::kTrain, {49 - sample, sample}, true, 1, 2);
    EXPECT_TRUE(at::equal(other.inputs[1], all.inputs[sample]));
  }
  EXPECT_FALSE(at::equal(filled(*set, Split::kTrain, first(50), true, 1, 3).inputs, all.inputs));
  EXPECT_FALSE(at::equal(filled(*set, Split::kTrain, first(50), true, 2, 2).inputs, all.inputs));
  EXPECT_FALSE(at::equal(filled(*set, Split::kTrain, first(50)).inputs, all.inputs));
}

TEST_F(Arrays, AugmentIntoShiftsAndMirrorsOfTheImageOnly) {
  auto source = fields(3);
  source.set("data.augment.pad_crop", int64_t{2})
      .set("data.augment.flip", 0.5)
      .set("data.augment.cutout", int64_t{3});
  auto set = open_dataset(source);
  const Batch plain = filled(*set, Split::kTrain, first(40)),
              drawn = filled(*set, Split::kTrain, first(40), true);
  const auto black = set->preprocessing().buffers[1].second;  // 0 * scale + shift
  std::set<std::string> kinds;
  for (int64_t i = 0; i < 40; ++i) {
    auto padded = black.expand({3, 10, 9}).clone();
    padded.slice(1, 2, 8).slice(2, 2, 7).copy_(plain.inputs[i]);
    const auto image = drawn.inputs[i];
    const auto cut = (image == 0).all(0);  // normalised noise is never exactly 0
    EXPECT_GE(cut.sum().item<int64_t>(), 4);
    EXPECT_LE(cut.sum().item<int64_t>(), 9);
    int matches = 0;
    for (int dy = 0; dy < 5; ++dy)
      for (int dx = 0; dx < 5; ++dx)
        for (bool flip : {false, true}) {
          auto candidate = padded.slice(1, dy, dy + 6).slice(2, dx, dx + 5);
          if (flip) candidate = candidate.flip({2});
          if (!at::equal(at::where(cut, at::zeros_like(image), candidate), image)) continue;
          ++matches;
          kinds.insert(std::to_string(dy) + std::to_string(dx) + (flip ? "f" : ""));
        }
    EXPECT_EQ(matches, 1) << i;
  }
  EXPECT_GT(kinds.size(), 20u);
}

TEST(Pixels, AgreeWithPlainLoopsAtOddSizes) {
  for (int width : {1, 2, 7, 17, 33})
    for (int channels : {1, 2, 3}) {
      const int height = 3, n = height * width * channels;
      const std::string bytes = noise(n, width);
      const auto* image = reinterpret_cast<const uint8_t*>(bytes.data());
      std::vector<float> scale, shift, out(n);
      for (int c = 0; c < channels; ++c)
        scale.push_back(0.01f * (c + 1)), shift.push_back(-0.3f * (c + 1));
      const Normalizer normalizer(height, width, channels, scale, shift);
      std::vector<uint8_t> scratch(n);
      for (int dy : {-4, -1, 0, 2})
        for (int dx : {-40, -1, 0, 1, 6})
          for (bool flip : {false, true}) {
            Window w;
            w.dy = dy, w.dx = dx, w.flip = flip;
            normalizer.window(image, w, scratch.data(), out.data());
            for (int y = 0; y < height; ++y)
              for (int x = 0; x < width; ++x)
                for (int c = 0; c < channels; ++c) {
                  const int sy = y + dy, sx = (flip ? width - 1 - x : x) + dx;
                  const bool inside = sy >= 0 && sy < height && sx >= 0 && sx < width;
                  const volatile float product =
                      (inside ? image[(sy * width + sx) * channels + c] : 0) * scale[c];
                  ASSERT_EQ(out[(y * width + x) * channels + c], product + shift[c])
                      << width << "x" << channels << " " << dy << " " << dx << " " << flip;
                }
          }
    }
}

}  // namespace
}  // namespace lehr::data
