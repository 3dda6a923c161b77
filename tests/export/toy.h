// Small models and data sets in memory for the tests of the export room.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/data/dataset.h"
#include "engine/export/artefact.h"
#include "models/model.h"

namespace lehr::artefact::testing {

// A folder that is gone after the test.
class Scratch {
 public:
  Scratch()
      : path_((std::filesystem::temp_directory_path() / ("lehr-export-" + unique_id())).string()) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return join_path(path_, name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline at::Tensor uniform(at::IntArrayRef sizes, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::rand(sizes, generator) - 0.5;
}

struct Dense : models::Module {
  Dense(int64_t in, int64_t out, uint64_t seed) {
    weight = add_parameter("weight", uniform({out, in}, seed));
    bias = add_parameter("bias", uniform({out}, seed + 1));
  }
  at::Tensor forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }
  at::Tensor weight, bias;
};

struct Conv : models::Module {
  Conv(int64_t in, int64_t out, uint64_t seed) {
    weight = add_parameter("weight", uniform({out, in, 3, 3}, seed));
    mean = add_buffer("mean", uniform({out}, seed + 1));
    variance = add_buffer("variance", uniform({out}, seed + 2) + 1);
  }
  at::Tensor forward(const at::Tensor& x) const {
    auto y = at::conv2d(x, weight, {}, 1, 1);
    return at::batch_norm(y, {}, {}, mean, variance, is_training(), 0.1, 1e-5, false);
  }
  at::Tensor weight, mean, variance;
};

// How a ToyNet betrays the exporter.
enum class Fault { kNone, kFixedBatch, kBranch, kDrift, kCustomOperator, kRandom };

// conv -> relu -> pool -> flatten -> head.fc1 -> relu -> head.fc2, images of 8 x 8
struct ToyNet : models::Model {
  struct Head : models::Module {
    Head(int64_t in, int64_t out) {
      fc1 = add_module("fc1", std::make_shared<Dense>(in, 6, 11));
      fc2 = add_module("fc2", std::make_shared<Dense>(6, out, 13));
    }
    std::shared_ptr<Dense> fc1, fc2;
  };
  ToyNet(int64_t channels, int64_t outputs, Fault f = Fault::kNone) : fault(f) {
    conv = add_module("conv", std::make_shared<Conv>(channels, 4, 7));
    head = add_module("head", std::make_shared<Head>(4 * 4 * 4, outputs));
  }
  at::Tensor forward(const at::Tensor& x) override {
    ++calls;
    auto y = at::max_pool2d(at::relu(conv->forward(x)), 2);  // [B, 4, 4, 4]
    y = fault == Fault::kFixedBatch ? y.reshape({y.size(0), 64}) : y.flatten(1);
    y = head->fc1->forward(y);
    if (fault == Fault::kBranch && y.size(0) > 2) y = y * 2;
    if (fault == Fault::kDrift) y = y * (1 + 1e-6 * static_cast<double>(calls));
    if (fault == Fault::kRandom) y = at::bernoulli(at::sigmoid(y));
    return head->fc2->forward(at::relu(y));
  }
  Fault fault;
  int calls = 0;
  std::shared_ptr<Conv> conv;
  std::shared_ptr<Head> head;
};

// 40 images uint8 [8, 8] (or [8, 8, 3]), normalised as the data room does it.
class ToyImages : public data::Dataset {
 public:
  ToyImages(int64_t channels, int64_t classes, int64_t values = 0, int64_t count = 40)
      : count_(count) {
    info_.is_image = true;
    info_.channels = channels, info_.height = 8, info_.width = 8, info_.values = values;
    for (int64_t c = 0; c < classes; ++c)
      info_.classes.push_back(fmt::format("class \"{}\" \u00e9", c));
    std::vector<int64_t> shape = {count, 8, 8};
    if (channels > 1) shape.push_back(channels);
    images_ = ((uniform(shape, 3) + 0.5) * 256).to(at::kByte);
  }
  const data::DataInfo& info() const override { return info_; }
  int64_t size(data::Split split) const override {
    return split == data::Split::kTest ? count_ : 0;
  }
  Batch allocate(int64_t n) const override {
    Batch batch;
    batch.inputs = at::empty({n, info_.channels, 8, 8},
                             at::TensorOptions().memory_format(at::MemoryFormat::ChannelsLast));
    batch.samples.resize(n);
    return batch;
  }
  void fill(data::Split, const int64_t* samples, int64_t begin, int64_t end, bool, uint64_t,
            int64_t, Batch& batch) const override {
    for (int64_t i = begin; i < end; ++i) {
      auto image =
          images_[samples[i]].view({8, 8, info_.channels}).permute({2, 0, 1}).to(at::kFloat);
      batch.inputs[i].copy_(image * scale_ + shift_);
    }
  }
  data::RawBatch raw(data::Split, const std::vector<int64_t>& samples) const override {
    data::RawBatch batch;
    batch.images = images_.index_select(0, at::tensor(samples));
    return batch;
  }
  data::Preprocessing preprocessing() const override {
    return {R"(
def preprocess(self, images: Tensor) -> Tensor:
    if images.dim() == 3:
        images = images.unsqueeze(3)
    x = images.permute(0, 3, 1, 2).to(torch.float32)
    return x * self.scale + self.shift
)",
            {{"scale", at::tensor(scale_)}, {"shift", at::tensor(shift_)}},
            {},
            {}};
  }
  std::string statistics() const override { return "{\"mean\": [0.5]}\n"; }

 private:
  data::DataInfo info_;
  int64_t count_;
  at::Tensor images_;
  float scale_ = 1 / 73.5f, shift_ = -1.7f;
};

// 40 rows of two numbers, one sometimes missing, and one string of a few, sometimes missing or
// unknown.
class ToyTable : public data::Dataset {
 public:
  explicit ToyTable(int64_t classes) {
    info_.number_columns = {"age", "height"};
    info_.string_columns = {"town"};
    info_.features = 2 + 3;
    for (int64_t c = 0; c < classes; ++c) info_.classes.push_back(fmt::format("c{}", c));
    info_.values = classes == 0 ? 2 : 0;
    numbers_ = uniform({40, 2}, 5).to(at::kDouble);
    for (int64_t i = 0; i < 40; ++i) {
      if (i % 7 == 3) numbers_[i][0] = std::numeric_limits<double>::quiet_NaN();
      towns_.push_back(i % 5 == 0    ? ""
                       : i % 11 == 0 ? "Nowhere"
                                     : fmt::format("T\u00f6wn\n\"{}\"", i % 3));
    }
    for (int64_t t = 0; t < 3; ++t) codes_[fmt::format("T\u00f6wn\n\"{}\"", t)] = t;
  }
  const data::DataInfo& info() const override { return info_; }
  int64_t size(data::Split split) const override {
    return split == data::Split::kValidation ? 40 : 0;
  }
  Batch allocate(int64_t n) const override {
    Batch batch;
    batch.inputs = at::empty({n, info_.features});
    batch.samples.resize(n);
    return batch;
  }
  void fill(data::Split, const int64_t* samples, int64_t begin, int64_t end, bool, uint64_t,
            int64_t, Batch& batch) const override {
    for (int64_t i = begin; i < end; ++i) {
      auto row = at::zeros({info_.features});
      row.slice(0, 0, 2).copy_(at::nan_to_num(numbers_[samples[i]]).to(at::kFloat));
      if (auto code = codes_.find(towns_[samples[i]]); code != codes_.end())
        row[2 + code->second] = 1;
      batch.inputs[i].copy_(row);
    }
  }
  data::RawBatch raw(data::Split, const std::vector<int64_t>& samples) const override {
    data::RawBatch batch;
    batch.numbers = numbers_.index_select(0, at::tensor(samples));
    for (int64_t s : samples) batch.strings.push_back({towns_[s]});
    return batch;
  }
  data::Preprocessing preprocessing() const override {
    return {R"(
def preprocess(self, numbers: Tensor, strings: List[List[str]]) -> Tensor:
    codes: List[int] = []
    for row in strings:
        code = 3
        if row[0] in self.codes:
            code = self.codes[row[0]]
        codes.append(code)
    one_hot = torch.eye(4, dtype=torch.float32).index_select(0, torch.tensor(codes, dtype=torch.int64))
    return torch.cat([torch.nan_to_num(numbers).to(torch.float32), one_hot[:, :3]], 1)
)",
            {},
            {},
            {{"codes", codes_}}};
  }
  std::string statistics() const override { return "{}\n"; }

 private:
  data::DataInfo info_;
  at::Tensor numbers_;
  std::vector<std::string> towns_;
  std::map<std::string, int64_t> codes_;
};

struct ToyTableNet : models::Model {
  explicit ToyTableNet(int64_t outputs) {
    fc = add_module("0", std::make_shared<Dense>(5, outputs, 17));
  }
  at::Tensor forward(const at::Tensor& x) override { return fc->forward(x); }
  std::shared_ptr<Dense> fc;
};

inline ExportRequest request(std::shared_ptr<models::Model> model,
                             std::shared_ptr<data::Dataset> dataset, const std::string& loss,
                             const std::string& output) {
  ExportRequest r;
  r.model = std::move(model);
  r.dataset = std::move(dataset);
  r.loss = loss;
  r.recipe_yaml = "model:\n  name: toy\n";
  r.metrics_json = "{\"test\": {\"accuracy\": 0.5}}\n";
  r.origin_json = "{\"step\": 12}";
  r.output = output;
  return r;
}
inline ExportRequest image_request(const std::string& output, Fault fault = Fault::kNone) {
  return request(std::make_shared<ToyNet>(1, 10, fault), std::make_shared<ToyImages>(1, 10),
                 "cross_entropy", output);
}

// the message of the Error that `work` throws; fails the test when it throws none or of another
// kind
inline std::string refused(Code code, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         (a.numel() == 0 ||
          std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0);
}

}  // namespace lehr::artefact::testing
