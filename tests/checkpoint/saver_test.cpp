// The saver's promises to the loop: what enters a checkpoint, when a failure is heard, what is
// waited for; and tensors of every dtype and layout there and back.
#include "engine/checkpoint/saver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <climits>
#include <fstream>

#include "engine/base/error.h"
#include "engine/base/host_bytes.h"
#include "tests/base/scratch.h"

namespace lehr::checkpoint {
namespace {

constexpr at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                     at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

Content content_of(int64_t step) {
  Content content;
  content.step = step;
  content.samples = step * 2;
  content.facts = "{}";
  content.texts["recipe.yaml"] = "a: 1\n";
  return content;
}

at::Tensor sample(at::ScalarType type, at::IntArrayRef shape) {
  return (at::randn(shape) * 50).abs().to(type);
}

}  // namespace

TEST(Saver, RoundTripsAllDtypesLayoutsAndSizes) {
  Scratch scratch;
  NamedTensors weights, volatiles, state;
  for (auto type : kTypes) {
    std::string name = at::toString(type);
    weights.push_back({"w." + name, sample(type, {3, 5})});
    volatiles.push_back({"v." + name, sample(type, {})});
    state.push_back({"s." + name, sample(type, {7}).as_strided({2, 3}, {1, 2})});
  }
  weights.push_back(
      {"channels_last", at::randn({2, 3, 4, 5}).contiguous(at::MemoryFormat::ChannelsLast)});
  weights.push_back({"empty", at::empty({0, 3})});
  weights.push_back({"parameter", at::randn({64, 65}).set_requires_grad(true)});
  Saver saver(scratch.path(), {});
  saver.prepare(weights, volatiles, state);
  EXPECT_EQ(saver.committed_step(), -1);
  saver.take(content_of(4), weights, volatiles, state);
  saver.finish_copy();
  saver.wait();
  EXPECT_EQ(saver.committed_step(), 4);
  saver.save_now(content_of(5), weights, volatiles, state);
  EXPECT_EQ(saver.committed_step(), 5);

  auto hollow = [](const NamedTensors& like) {
    NamedTensors out;
    for (const auto& one : like) {
      out.push_back({one.name, at::zeros_like(one.tensor)});
      if (one.tensor.requires_grad()) out.back().tensor.set_requires_grad(true);
    }
    return out;
  };
  for (const char* step : {"step-00000004", "step-00000005"}) {
    Loaded loaded = load(scratch / step);
    EXPECT_EQ(loaded.samples, 2 * loaded.step);
    auto check = [&](const NamedTensors& saved, const char* shard) {
      NamedTensors restored = hollow(saved);
      restore(*loaded.shards.at(shard), restored);
      for (size_t i = 0; i < saved.size(); ++i) {
        EXPECT_TRUE(at::equal(saved[i].tensor, restored[i].tensor)) << saved[i].name;
        EXPECT_EQ(saved[i].tensor.strides(), restored[i].tensor.strides()) << saved[i].name;
      }
    };
    check(weights, "weights");
    check(volatiles, "weights");
    check(state, "state");
    EXPECT_EQ(loaded.shards.at("weights")->tensors().size(), weights.size() + volatiles.size());
  }
}

TEST(Saver, WhatIsWrittenAfterFinishCopyDoesNotEnter) {
  Scratch scratch;
  NamedTensors weights, state;
  for (int i = 0; i < 20; ++i) {
    weights.push_back({"w" + std::to_string(i), at::full({500, 500}, 1.0)});
    state.push_back({"s" + std::to_string(i), at::full({500, 500}, 2.0)});
  }
  at::Tensor buffer = at::full({1000}, 3.0);
  Saver saver(scratch.path(), {});
  for (int64_t step = 1; step <= 3; ++step) {
    saver.take(content_of(step), weights, {{"buffer", buffer}}, state);
    buffer.fill_(-1);  // batch norm writes in the next forward: copied at once
    saver.finish_copy();
    for (auto* list : {&weights, &state})
      for (auto& one : *list) one.tensor.fill_(-1);
    saver.wait();
    Loaded loaded = load(scratch / ("step-0000000" + std::to_string(step)));
    at::Tensor read_buffer = at::zeros({1000});
    restore(*loaded.shards.at("weights"), weights);
    restore(*loaded.shards.at("weights"), {{"buffer", read_buffer}});
    restore(*loaded.shards.at("state"), state);
    EXPECT_TRUE(at::all(read_buffer == 3.0).item<bool>());
    buffer.copy_(read_buffer);
    for (const auto& one : weights) EXPECT_TRUE(at::all(one.tensor == 1.0).item<bool>());
    for (const auto& one : state) EXPECT_TRUE(at::all(one.tensor == 2.0).item<bool>());
  }
}

TEST(Saver, SaveNowNeedsNoSecondCopyAndThrowsItsFailureAtOnce) {
  Scratch scratch;
  const at::Tensor large = at::ones({64 << 20});  // 256 MB
  const auto peak_kb = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
    return 0L;
  };
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  const long before = peak_kb();
  Saver saver(scratch.path(), {});
  saver.save_now(content_of(1), {{"large", large}}, {}, {});
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr long kMost = LONG_MAX;  // a sanitizer keeps records of its own
#else
  constexpr long kMost = 64 << 10;
#endif
  EXPECT_LT(peak_kb() - before, kMost);
  EXPECT_EQ(load(scratch / "step-00000001").step, 1);
  std::ofstream(scratch / "file") << "in the way";
  Saver nowhere(scratch / "file/inside", {});
  EXPECT_THROW(nowhere.save_now(content_of(1), {{"w", at::ones({4})}}, {}, {}), Error);
}

TEST(Saver, AFailureIsHeardOnceAtTheNextTakeAndTheOneAfterSucceeds) {
  Scratch scratch;
  NamedTensors weights = {{"w", at::ones({4})}};
  Saver saver(scratch.path(), {});
  saver.take(content_of(1), weights, {}, {});
  saver.wait();
  saver.take(content_of(1), weights, {}, {});  // is there already: fails in the background
  saver.finish_copy();
  try {
    saver.take(content_of(2), weights, {}, {});
    ADD_FAILURE() << "the failure was swallowed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kCheckpoint);
    EXPECT_NE(std::string(e.what()).find("step 1 was not saved"), std::string::npos) << e.what();
  }
  EXPECT_EQ(saver.committed_step(), 1);
  saver.finish_copy();
  saver.wait();
  EXPECT_FALSE(file_exists(scratch / "step-00000002"));
  saver.take(content_of(2), weights, {}, {});
  saver.wait();
  EXPECT_EQ(saver.committed_step(), 2);
}

TEST(Saver, AFailureIsHeardAtWait) {
  Scratch scratch;
  write_file_durably(scratch / "file", "");
  Saver saver(scratch / "file", {});
  saver.take(content_of(1), {{"w", at::ones({4})}}, {}, {});
  saver.finish_copy();
  EXPECT_THROW(saver.wait(), Error);
  saver.wait();
}

TEST(Saver, SavesNeverOverlapAndRetentionFollowsEach) {
  Scratch scratch;
  NamedTensors weights = {{"w", at::ones({300, 1000})}};
  Saver saver(scratch.path(), {2, 0, 0, true});
  for (int64_t step = 1; step <= 6; ++step) {
    saver.take(content_of(step), weights, {}, {});
    // the earlier one is committed before the next begins: at most one folder is in the making
    EXPECT_EQ(saver.committed_step(), step > 1 ? step - 1 : -1);
    int in_the_making = 0;
    for (const auto& name : list_folder(scratch.path()))
      in_the_making += name.find(".tmp-") != std::string::npos;
    EXPECT_LE(in_the_making, 1);
    saver.finish_copy();
  }
  saver.wait();
  EXPECT_EQ(list_folder(scratch.path()),
            (std::vector<std::string>{"step-00000005", "step-00000006"}));
  EXPECT_GT(saver.blocked_s(), 0);
}

TEST(Saver, ADestroyedSaverHasFinishedItsSave) {
  Scratch scratch;
  {
    Saver saver(scratch.path(), {});
    saver.take(content_of(1), {{"w", at::ones({1000, 1000})}}, {}, {});
  }
  EXPECT_EQ(load(scratch / "step-00000001").step, 1);
}

TEST(Saver, WhatCannotBeSavedIsNamedAtOnce) {
  Scratch scratch;
  Saver saver(scratch.path(), {});
  std::string message = message_of([&] {
    saver.take(content_of(1), {{"spectrum", at::ones({2}, at::kComplexFloat)}}, {}, {});
  });
  EXPECT_NE(message.find("spectrum"), std::string::npos) << message;
  saver.finish_copy();
  saver.wait();
}

TEST(Restore, RefusesAMissingNameAnotherShapeOrDtypeAndChangesNothing) {
  Scratch scratch;
  at::Tensor a = at::ones({2, 3}), b = at::ones({4});
  write_safetensors(scratch / "f", HostViews({{"a", a}, {"b", b}}).views());
  SafetensorsFile file(scratch / "f");
  at::Tensor target = at::zeros({2, 3});
  struct Case {
    NamedTensor second;
    const char* says;
  } cases[] = {{{"c", at::zeros({4})}, "c: is not in"},
               {{"b", at::zeros({5})}, "b: is F32 [4] in the checkpoint, and F32 [5] here"},
               {{"b", at::zeros({4}, at::kDouble)}, "F64 [4] here"}};
  for (const auto& one : cases) {
    std::string message = message_of([&] { restore(file, {{"a", target}, one.second}); });
    EXPECT_NE(message.find(one.says), std::string::npos) << message;
    EXPECT_TRUE(at::all(target == 0).item<bool>());
  }
  restore(file, {{"a", target}});
  EXPECT_TRUE(at::equal(target, a));
}

TEST(Restore, ReadsUnalignedTensorsOfOtherWriters) {
  Scratch scratch;
  std::string header =
      "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}";
  uint64_t size = header.size();
  float values[2] = {1.5f, -2.5f};
  write_file_durably(scratch / "f", std::string(reinterpret_cast<char*>(&size), 8) + header + "x" +
                                        std::string(reinterpret_cast<char*>(values), 8));
  at::Tensor y = at::zeros({2}), z = at::zeros({4}).slice(0, 0, 4, 2);
  SafetensorsFile file(scratch / "f");
  restore(file, {{"y", y}});
  EXPECT_EQ(y[1].item<float>(), -2.5f);
  restore(file, {{"y", z}});
  EXPECT_EQ(z[0].item<float>(), 1.5f);
}

TEST(HostBytes, AreInRowMajorOrderWhateverTheStrides) {
  const at::Tensor t = at::arange(6, at::kFloat).view({2, 3});
  for (const auto& same : {t, t.t().contiguous().t(), t.clone().requires_grad_()}) {
    const HostBytes bytes(same);
    ASSERT_EQ(bytes.size(), 24U);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(static_cast<const float*>(bytes.data())[i], i);
    EXPECT_TRUE(same_bytes(same, t));
  }
  EXPECT_EQ(HostBytes(t).data(), t.const_data_ptr());  // no copy where none is needed
  EXPECT_FALSE(same_bytes(t, t.to(at::kDouble)));
  EXPECT_FALSE(same_bytes(t, t.view({3, 2})));
  EXPECT_FALSE(same_bytes(at::zeros({1}), at::full({1}, -0.0)));
}

}  // namespace lehr::checkpoint
