// The TorchScript twin of each source's preprocessing, compiled and run by LibTorch: the same bits
// as fill(), for every kind of sample.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include "engine/data/dataset.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

torch::jit::Module compiled(const Preprocessing& p) {
  torch::jit::Module module("Preprocessing");
  for (const auto& [name, tensor] : p.buffers) module.register_buffer(name, tensor);
  for (const auto& [name, map] : p.string_maps) {
    c10::Dict<std::string, int64_t> dict;
    for (const auto& [key, value] : map) dict.insert(key, value);
    module.register_attribute(
        name, c10::DictType::create(c10::StringType::get(), c10::IntType::get()), dict);
  }
  module.define(p.source);
  return module;
}

std::vector<int64_t> all(const Dataset& set, Split split) {
  std::vector<int64_t> samples(set.size(split));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = i;
  return samples;
}

Batch filled(const Dataset& set, Split split) {
  Batch batch = set.allocate(set.size(split));
  const auto samples = all(set, split);
  set.fill(split, samples.data(), 0, samples.size(), false, 0, 0, batch);
  return batch;
}

TEST(Script, GivesTheBitsOfFillForImages) {
  TempFolder folder;
  for (uint32_t channels : {1, 3}) {
    auto shape =
        channels == 1 ? std::vector<uint32_t>{100, 28, 28} : std::vector<uint32_t>{100, 9, 11, 3};
    size_t n = 1;
    for (uint32_t d : shape) n *= d;
    FixedFields fields({{"data.train_images", folder.write("i", idx(shape, noise(n)))},
                        {"data.train_labels", folder.write("l", idx({100}, label_bytes(100, 2)))}});
    auto set = open_dataset(fields);
    auto module = compiled(set->preprocessing());
    for (Split split : {Split::kTrain, Split::kValidation}) {
      const RawBatch raw = set->raw(split, all(*set, split));
      const auto x = module.run_method("preprocess", raw.images).toTensor();
      const auto inputs = filled(*set, split).inputs;
      EXPECT_TRUE(at::equal(x, inputs));
      EXPECT_EQ(x.strides(), inputs.strides());
      EXPECT_TRUE(x.is_contiguous(at::MemoryFormat::ChannelsLast));
      // part of a larger tensor, and one image alone
      EXPECT_TRUE(at::equal(module.run_method("preprocess", raw.images.slice(0, 1, 2)).toTensor(),
                            inputs.slice(0, 1, 2)));
      if (channels == 1) {
        EXPECT_TRUE(
            at::equal(module.run_method("preprocess", raw.images.unsqueeze(3)).toTensor(), inputs));
      }
    }
  }
}

TEST(Script, GivesTheBitsOfFillForTables) {
  TempFolder folder;
  Random random(1, Stream::kTest, 0);
  std::string text = "a,b,c,s,t,y\n";
  for (int i = 0; i < 500; ++i)
    text += (random.below(10) ? std::to_string(random.normal() * 1e3) : "") + "," +
            std::to_string(random.normal()) + ",7," +
            std::string(1, static_cast<char>('a' + random.below(20))) + "," +
            (random.below(5) ? "u:" + std::to_string(random.below(3)) : "") + "," +
            std::to_string(i) + "\n";
  FixedFields fields(
      {{"data.source", std::string("csv")},
       {"data.train_file", folder.write("t.csv", text)},
       {"data.validation_file",
        folder.write("v.csv",
                     "a,b,c,s,t,y\n,,,,,1\n1e300,-1e300,8,zzz,u:9,2\n3,4,7,0:a,1:u:0,3\n")},
       {"data.target", std::string("y")}});
  for (int part = 0; part < 3; ++part) {
    FixedFields chosen = fields;
    if (part == 1) chosen.set("data.number_columns", StringList{"b", "a"});
    if (part == 2) chosen.set("data.string_columns", StringList{"t", "s"});
    auto set = open_dataset(chosen);
    auto module = compiled(set->preprocessing());
    for (Split split : {Split::kTrain, Split::kValidation}) {
      const RawBatch raw = set->raw(split, all(*set, split));
      c10::List<c10::List<std::string>> strings;
      for (const auto& row : raw.strings) {
        c10::List<std::string> list;
        for (const auto& s : row) list.push_back(s);
        strings.push_back(list);
      }
      const auto x = module.run_method("preprocess", raw.numbers, strings).toTensor();
      const auto inputs = filled(*set, split).inputs;
      ASSERT_EQ(x.sizes(), inputs.sizes());
      EXPECT_TRUE(at::equal(x, inputs)) << part << " " << to_string(split);
    }
  }
}

TEST(Script, LeavesTokensAsTheyAre) {
  TempFolder folder;
  FixedFields fields({{"data.source", std::string("text")},
                      {"data.train_file", folder.write("t.txt", std::string(500, 'a') + "b")},
                      {"data.context", int64_t{8}}});
  auto set = open_dataset(fields);
  const at::Tensor tokens = set->raw(Split::kValidation, all(*set, Split::kValidation)).tokens;
  const auto x = compiled(set->preprocessing()).run_method("preprocess", tokens).toTensor();
  EXPECT_TRUE(at::equal(x, filled(*set, Split::kValidation).inputs));
}

}  // namespace
}  // namespace lehr::data
