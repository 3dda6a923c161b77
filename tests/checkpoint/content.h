// Known content for every step, made without LibTorch, so that a test can tell which step it got
// and whether all of it is right. Never change it: the stored checkpoints hold content of step 7.
#pragma once

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/base/files.h"
#include "engine/base/random.h"
#include "engine/base/rows.h"
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

  // Turns it into what process `index` of `count` saves: its rows of the state, and all else with
  // the first.
  void take_part(int64_t index, int64_t count, const std::string& folder, double patience_s) {
    content.part = {index, count, folder, patience_s};
    std::vector<TensorView> state;
    for (TensorView view : content.shards["state"]) {
      const Rows rows = rows_of_part(view.shape[0], count, index);
      content.rows[view.name] = rows;
      if (rows.count == 0 && (rows.of > 0 || index > 0)) continue;
      if (rows.of > 0) {
        const uint64_t row = view.bytes / rows.of;
        view.data = static_cast<const char*>(view.data) + row * rows.first;
        view.bytes = row * rows.count;
        view.shape[0] = rows.count;
      }
      state.push_back(view);
    }
    content.shards["state"] = state;
    if (index > 0) content.shards.erase("weights"), content.texts.clear();
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

// As the run's holder, whose lock lies elsewhere here.
inline std::optional<Loaded> claim_newest(const std::string& folder,
                                          const std::function<void(const std::string&)>& complain) {
  struct Place {
    std::string path = "/tmp/lehr-lock-XXXXXX";
    Place() {
      if (!mkdtemp(path.data())) std::abort();
    }
    ~Place() { remove_tree(path); }
  } place;
  return claim_newest(folder, FolderLock(place.path), complain);
}

inline std::vector<Loaded::Piece> pieces_of(const Loaded& loaded, const std::string& shard) {
  if (const auto whole = loaded.shards.find(shard); whole != loaded.shards.end())
    return {{whole->second, {}}};
  const auto shared = loaded.shared.find(shard);
  return shared == loaded.shared.end() ? std::vector<Loaded::Piece>{} : shared->second;
}

// What differs between a loaded checkpoint and the known content of its step; "" for nothing.
inline std::string difference(const Loaded& loaded, int64_t scale = 1) {
  Known known(loaded.step, scale);
  if (loaded.samples != known.content.samples) return "samples";
  if (loaded.facts != known.content.facts) return "facts: " + loaded.facts;
  if (loaded.texts != known.content.texts) return "texts";
  if (loaded.shards.size() + loaded.shared.size() != known.content.shards.size())
    return "number of shards";
  for (const auto& [shard, tensors] : known.content.shards) {
    const auto pieces = pieces_of(loaded, shard);
    if (pieces.empty()) return "no shard " + shard;
    size_t found = 0;
    for (const auto& expected : tensors) {
      std::string bytes(expected.bytes, '\0');
      uint64_t filled = 0;
      for (const auto& piece : pieces) {
        const TensorView* view = piece.file->find(expected.name);
        if (!view) continue;
        ++found;
        std::vector<int64_t> shape = view->shape;
        uint64_t begin = 0;
        if (const auto rows = piece.rows.find(expected.name); rows != piece.rows.end()) {
          shape[0] = rows->second.of;
          begin = expected.bytes / rows->second.of * rows->second.first;
        }
        if (view->dtype != expected.dtype || shape != expected.shape ||
            begin + view->bytes > bytes.size())
          return expected.name;
        std::memcpy(bytes.data() + begin, view->data, view->bytes);
        filled += view->bytes;
      }
      if (filled != expected.bytes) return "rows of " + expected.name;
      if (std::memcmp(bytes.data(), expected.data, expected.bytes) != 0)
        return "bytes of " + expected.name;
    }
    for (const auto& piece : pieces) found -= piece.file->tensors().size();
    if (found != 0) return "number of tensors in " + shard;
  }
  return "";
}

}  // namespace lehr::checkpoint
