// Pictures as a user has them: what training, `lehr evaluate` and `lehr predict` make of the same
// files, and what one bad file does.
#include <gtest/gtest.h>
#include <png.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "engine/base/random.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using nlohmann::json;

// A PNG of noise, brighter at the left or at the right border by its class.
std::string picture(int height, int width, int channels, int cls, uint64_t seed) {
  Random random(seed, Stream::kTest, 0);
  std::string pixels;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        pixels += static_cast<char>(random.below(180) + ((x < width / 3) == (cls == 0) ? 60 : 0));
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width, image.height = height;
  image.format = channels == 4 ? PNG_FORMAT_RGBA : channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
  std::string out(size, '\0');
  png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, nullptr);
  return out;
}

std::string npy(const std::string& shape, const std::string& content) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + ", }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) +
         static_cast<char>(header.size() >> 8) + header + content;
}

class Pictures : public ::testing::Test {
 protected:
  // Two classes of `each` pictures, of many sizes and kinds, none square.
  void write_set(const std::string& name, int each) {
    for (int i = 0; i < 2 * each; ++i) {
      const int cls = i % 2, kinds[] = {3, 1, 4};
      const std::string folder = name + (cls == 0 ? "/left" : "/right");
      std::filesystem::create_directories(scratch.file(folder));
      scratch.write(folder + "/" + std::to_string(i) + ".png",
                    picture(18 + i % 5, 30 + i % 7, kinds[i % 3], cls, name.size() * 1000 + i));
    }
  }
  void write_recipe(const std::string& data, const std::string& more = "") {
    scratch.write("p.yaml", "model: {name: cnn, channels: [4], hidden: 8}\ndata: {" + data +
                                "}\ntraining: {global_batch_size: 8, max_epochs: 2, threads: 1}\n"
                                "optimizer: {lr: 1e-3}\n" +
                                more);
  }
  void write_folder_recipe(const std::string& data = "", const std::string& more = "") {
    write_recipe(
        "source: image_folder, train_folder: train, validation_folder: val, test_folder: test, "
        "image_size: 16" +
            data,
        more);
  }
  Outcome run(std::vector<std::string> words) { return lehr(words, scratch.path); }
  json parsed(const std::string& file) { return json::parse(scratch.read(file)); }
  std::vector<std::string> lines(const std::string& file) {
    std::vector<std::string> all;
    std::istringstream stream(scratch.read(file));
    for (std::string line; std::getline(stream, line);) all.push_back(line);
    return all;
  }
  Scratch scratch;
};

// every figure of the verb is that of the training's test row, to the digit
void expect_same(const json& verb, const json& row) {
  int compared = 0;
  for (const auto& [name, value] : verb.items())
    if (name != "samples" && name != "left_out") {
      ++compared;
      EXPECT_EQ(value, row.at(name)) << name;
    }
  EXPECT_GE(compared, 4);
}

TEST_F(Pictures, EvaluateReadsTheSameFilesAsTrainingDidForEverySourceOfImages) {
  write_set("train", 12), write_set("val", 5), write_set("test", 9);
  const auto evaluated = [&](std::vector<std::string> files) {
    const Outcome trained = run({"train", "p.yaml", "--run", "run", "--fresh"});
    EXPECT_EQ(trained.code, 0) << trained.out;
    files.insert(files.begin(), {"evaluate", "run/artefact", "--json", "--data"});
    const Outcome verb = run(files);
    EXPECT_EQ(verb.code, 0) << verb.out;
    expect_same(json::parse(verb.out), parsed("run/metrics.json")["test"]);
    std::filesystem::remove_all(scratch.file("run"));
  };
  for (const char* reading : {"", ", resize: 20", ", resize: 24, grey: true"}) {
    write_folder_recipe(reading);
    evaluated({"test"});
  }
  std::string images, labels;
  Random random(5, Stream::kTest, 0);
  for (int i = 0; i < 40; ++i) labels += static_cast<char>(i % 2);
  for (int i = 0; i < 40 * 12 * 20 * 3; ++i) images += static_cast<char>(random.bits());
  scratch.write("x.npy", npy("(40, 12, 20, 3)", images));
  scratch.write("y.npy", npy("(40,)", labels));
  write_recipe(
      "source: npy, train_images: x.npy, train_labels: y.npy, test_images: x.npy, test_labels: "
      "y.npy");
  evaluated({"x.npy", "y.npy"});
  write_images(scratch, 40);
  write_recipe(
      "source: idx, train_images: train-images, train_labels: train-labels, test_images: "
      "test-images, test_labels: test-labels");
  evaluated({"test-images", "test-labels"});
}

TEST_F(Pictures, PredictAnswersEachPictureBelowAFolderByName) {
  write_set("train", 8), write_set("val", 4), write_set("test", 3);
  write_folder_recipe();
  ASSERT_EQ(run({"train", "p.yaml", "--run", "run"}).code, 0);
  std::filesystem::create_directories(scratch.file("test/.ipynb_checkpoints"));
  scratch.write("test/.ipynb_checkpoints/0.png", picture(20, 30, 3, 0, 1));
  scratch.write("test/a,b.png", picture(20, 30, 3, 0, 2));
  const Outcome all = run({"predict", "run/artefact", "--input", "test", "--output", "all.csv"});
  ASSERT_EQ(all.code, 0) << all.out;
  EXPECT_NE(all.out.find("7 samples: all.csv"), std::string::npos) << all.out;
  EXPECT_NE(all.out.find("hidden names (.ipynb_checkpoints)"), std::string::npos) << all.out;
  const auto rows = lines("all.csv");
  ASSERT_EQ(rows.size(), 8u);
  EXPECT_EQ(rows[0], "label,probability_left,probability_right,file");
  EXPECT_TRUE(rows[1].ends_with(",\"test/a,b.png\"")) << rows[1];
  EXPECT_TRUE(rows[2].ends_with(",test/left/0.png")) << rows[2];
  // alone or among others, a picture has one answer
  ASSERT_EQ(
      run({"predict", "run/artefact", "--input", "test/left/0.png", "--output", "one.csv"}).code,
      0);
  EXPECT_EQ(lines("one.csv")[1], rows[2]);
}

TEST_F(Pictures, BadOnesAreLeftOutEverywhereWhereTheRecipeSaysSo) {
  for (const char* set : {"train", "val", "test"}) write_set(set, 8);
  for (const char* bad : {"train/left/4.png", "val/right/1.png", "test/left/0.png"})
    scratch.write(bad, scratch.read(bad).substr(0, 60));
  write_folder_recipe();
  const Outcome stopped = run({"check", "--all", "p.yaml"});
  EXPECT_EQ(stopped.code, 4) << stopped.out;
  for (const char* part :
       {"train/left/4.png at byte 60", "val/right/1.png at byte 60", "test/left/0.png at byte 60",
        "1 of 16 train, 1 of 16 validation, 1 of 16 test samples do not load"})
    EXPECT_NE(stopped.out.find(part), std::string::npos) << part << "\n" << stopped.out;
  write_folder_recipe(", bad_samples: skip");
  EXPECT_EQ(run({"check", "--all", "p.yaml"}).code, 0);
  const Outcome trained = run({"train", "p.yaml", "--run", "run"});
  ASSERT_EQ(trained.code, 0) << trained.out;
  EXPECT_NE(trained.out.find("left out, from the validation set: "), std::string::npos)
      << trained.out;
  const Outcome evaluated = run({"evaluate", "run/artefact", "--json", "--data", "test"});
  ASSERT_EQ(evaluated.code, 0) << evaluated.out;
  const json verb = json::parse(evaluated.out.substr(evaluated.out.find('{')));
  EXPECT_EQ(verb["samples"], 15);
  EXPECT_EQ(verb["left_out"], 1);
  expect_same(verb, parsed("run/metrics.json")["test"]);
  // its row is there, and empty
  ASSERT_EQ(run({"predict", "run/artefact", "--input", "test", "--output", "p.csv"}).code, 0);
  ASSERT_EQ(lines("p.csv").size(), 17u);
  EXPECT_EQ(lines("p.csv")[1], ",,,test/left/0.png");
  const Outcome predicted = run(
      {"predict", "run/artefact", "--input", "test", "--output", "q.csv", "--bad-samples", "stop"});
  EXPECT_EQ(predicted.code, 4) << predicted.out;
  EXPECT_NE(predicted.out.find("--bad-samples skip"), std::string::npos) << predicted.out;
  EXPECT_FALSE(file_exists(scratch.file("q.csv")));
}

// A run that a bad picture ends saves first, wherever it comes up; gone on with without the picture
// it ends as one that left it out from the beginning.
class BadPicture : public Pictures {
 protected:
  // 1,040 training pictures, of which 512 are looked at before the first step: the bad one is not.
  void SetUp() override {
    write_set("train", 520), write_set("val", 12);
    write_recipe(
        "source: image_folder, train_folder: train, validation_folder: val, image_size: 8",
        "checkpoint: {interval: 1000}\nvalidation: {interval: 6}\nmetrics: {log_interval: 1}\n"
        "export: {enabled: false}\n");
  }
  Outcome train(const std::string& folder, std::vector<std::string> more, int ranks = 1) {
    std::vector<std::string> words{"train", "p.yaml",
                                   "--run", folder,
                                   "--set", "training.global_batch_size=64",
                                   "--set", "training.max_epochs=1"};
    if (ranks > 1) {
      words[0] = "launch";
      words.insert(words.begin() + 1, {"-n", std::to_string(ranks)});
    }
    for (const auto& field : more) words.insert(words.end(), {"--set", field});
    return run(words);
  }
  void damage(const std::string& file) { scratch.write(file, "no picture"); }
  int64_t saved(const std::string& folder) {
    const std::string text = fingerprint(scratch.file(folder));
    return text.starts_with("step ") ? std::stoll(text.substr(5)) : 0;
  }
  // the rows of metrics.jsonl without what depends on clocks
  std::vector<json> rows(const std::string& folder) {
    std::vector<json> all;
    for (const auto& line : lines(folder + "/metrics.jsonl")) {
      json row = json::parse(line);
      row.erase("time"), row.erase("train.samples_per_s");
      all.push_back(row);
    }
    return all;
  }
};

TEST_F(BadPicture, InTrainingLosesNothing) {
  damage("train/left/1000.png");
  const std::string skip = "data.bad_samples=skip";
  // no evaluation saves anything on the way
  auto with = [&](std::vector<std::string> fields) {
    for (const char* field : {"parallelism.reduction=fixed_order", "parallelism.logical_shards=4",
                              "validation.interval=0"})
      fields.emplace_back(field);
    return fields;
  };
  const Outcome whole = train("whole", with({skip}));
  ASSERT_EQ(whole.code, 0) << whole.out;
  EXPECT_EQ(parsed("whole/finished.json")["bad_samples"], json({{"train", 1}}));
  EXPECT_NE(whole.out.find("left out as bad: 1 train"), std::string::npos) << whole.out;
  for (int ranks : {1, 2}) {
    const std::string folder = "cut" + std::to_string(ranks);
    const Outcome cut = train(folder, with({}), ranks);
    EXPECT_EQ(cut.code, 4) << cut.out;
    EXPECT_NE(cut.out.find("train/left/1000.png at byte 0: neither"), std::string::npos) << cut.out;
    EXPECT_NE(cut.out.find("everything is saved"), std::string::npos) << cut.out;
    const int64_t step = saved(folder);
    EXPECT_GT(step, 0);
    EXPECT_LT(step, 17);
    // again it gets no further, and loses nothing
    EXPECT_EQ(train(folder, with({}), ranks).code, 4);
    EXPECT_EQ(saved(folder), step);
    const Outcome rest = train(folder, with({skip}), ranks);
    ASSERT_EQ(rest.code, 0) << rest.out;
    EXPECT_EQ(fingerprint(scratch.file(folder)), fingerprint(scratch.file("whole"))) << ranks;
    auto now = rows(folder), then = rows("whole");
    for (auto* all : {&now, &then})
      if (ranks > 1) all->back().erase("validation.loss");  // which ranks sum in another order
    EXPECT_EQ(now, then);
    EXPECT_EQ(parsed(folder + "/finished.json")["bad_samples"], json({{"train", 1}}));
  }
}

TEST_F(BadPicture, InAnEvaluationLosesNothing) {
  damage("val/right/23.png");  // of the last batch, which of two ranks the second has
  const auto with = [](std::vector<std::string> fields) {
    fields.insert(fields.end(), {"parallelism.reduction=fixed_order",
                                 "parallelism.logical_shards=4", "validation.batch_size=5"});
    return fields;
  };
  const std::string skip = "data.bad_samples=skip";
  ASSERT_EQ(train("whole", with({skip})).code, 0);
  const std::vector<std::string> stop, few{skip, "data.max_bad_samples=0"};
  for (const auto& [ranks, fields] : {std::pair{1, stop}, {2, stop}, {2, few}}) {
    const std::string folder = "cut" + std::to_string(ranks) + std::to_string(fields.size());
    for (int again = 0; again < (ranks == 1 ? 2 : 1); ++again) {
      const Outcome cut = train(folder, with(fields), ranks);
      EXPECT_EQ(cut.code, 4) << cut.out;
      for (const char* part :
           {"stopped after step 6; everything is saved",
            fields.empty() ? "val/right/23.png at byte 0" : "1 bad samples in the validation set"})
        EXPECT_NE(cut.out.find(part), std::string::npos) << part << cut.out;
      EXPECT_EQ(saved(folder), 6);
    }
    const Outcome rest = train(folder, with({skip}), ranks);
    ASSERT_EQ(rest.code, 0) << rest.out;
    EXPECT_EQ(fingerprint(scratch.file(folder)), fingerprint(scratch.file("whole"))) << folder;
  }
}

TEST_F(BadPicture, TooManyEndTheRunAtTheSameStepOnAnyNumberOfRanks) {
  for (const char* bad : {"train/left/1000.png", "train/right/1001.png", "train/left/1002.png"})
    damage(bad);
  std::vector<int64_t> steps;
  for (int ranks : {1, 2}) {
    const std::string folder = "run" + std::to_string(ranks);
    const Outcome outcome =
        train(folder, {"data.bad_samples=skip", "data.max_bad_samples=2"}, ranks);
    EXPECT_EQ(outcome.code, 4) << outcome.out;
    EXPECT_NE(outcome.out.find("3 bad samples"), std::string::npos) << outcome.out;
    steps.push_back(saved(folder));
  }
  EXPECT_GT(steps[0], 0);
  EXPECT_EQ(steps[0], steps[1]);
}

}  // namespace
}  // namespace lehr::testing
