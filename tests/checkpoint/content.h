// Known content for every step, made without LibTorch, so that a test can tell which step it got
// and whether all of it is right. Never change it: the stored format-1 checkpoint holds content of
// step 7.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "engine/checkpoint/checkpoint.h"

namespace lehr::checkpoint {

struct Known {
  Content content;
  std::vector<std::string> memory;  // what the views point to

  Known(const Known&) = delete;
  explicit Known(int64_t step, int64_t scale = 1) {
    memory.reserve(8);
    content.step = step;
    content.samples = 64 * step;
    content.facts =
        "{\"monitor\":" + std::to_string(step % 5) + ".5,\"seed\":18446744073709551615}";
    content.texts["recipe.yaml"] = "training:\n  max_steps: " + std::to_string(step) + "\n";
    content.texts["empty.txt"] = "";
    content.shards["weights"] = {
        tensor("layer.weight", "F32", {4, 3 * scale}), tensor("layer.bias", "BF16", {5}),
        tensor("norm.num_batches_tracked", "I64", {}), tensor("norm.mask", "BOOL", {3})};
    content.shards["state"] = {tensor("exp_avg.layer.weight", "F32", {4, 3 * scale}),
                               tensor("nothing", "F64", {0, 2})};
  }

 private:
  TensorView tensor(const std::string& name, const std::string& dtype, std::vector<int64_t> shape) {
    uint64_t bytes = dtype_bytes(dtype);
    for (int64_t extent : shape) bytes *= extent;
    memory.emplace_back(bytes, '\0');
    Random random(content.step, Stream::kTest, memory.size());
    for (auto& byte : memory.back())
      byte = static_cast<char>(dtype == "BOOL" ? random.bits() & 1 : random.bits());
    return {name, dtype, std::move(shape), memory.back().data(), bytes};
  }
};

// What differs between a loaded checkpoint and the known content of its step; "" for nothing.
inline std::string difference(const Loaded& loaded, int64_t scale = 1) {
  Known known(loaded.step, scale);
  if (loaded.samples != known.content.samples) return "samples";
  if (loaded.facts != known.content.facts) return "facts: " + loaded.facts;
  if (loaded.texts != known.content.texts) return "texts";
  if (loaded.shards.size() != known.content.shards.size()) return "number of shards";
  for (const auto& [shard, tensors] : known.content.shards) {
    auto found = loaded.shards.find(shard);
    if (found == loaded.shards.end()) return "no shard " + shard;
    if (found->second->tensors().size() != tensors.size()) return "number of tensors in " + shard;
    for (const auto& expected : tensors) {
      const TensorView* view = found->second->find(expected.name);
      if (!view || view->dtype != expected.dtype || view->shape != expected.shape)
        return expected.name;
      if (std::memcmp(view->data, expected.data, expected.bytes) != 0)
        return "bytes of " + expected.name;
    }
  }
  return "";
}

}  // namespace lehr::checkpoint
