#include "engine/dist/world.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>

namespace lehr::dist {
namespace {

class Single : public World {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier(const std::string&) override {}
  std::unique_ptr<Pending> begin_sum(at::Tensor) override { return done(); }
  void sum_in_tree(at::Tensor) override {}
  std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    mine.copy_(all);
    return done();
  }
  std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    all.copy_(mine);
    return done();
  }
  void broadcast(at::Tensor, int) override {}
  void exchange(const at::Tensor&, at::Tensor, int) override {}
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override { return {tensor}; }
  std::unique_ptr<World> split(int) override { return std::make_unique<Single>(); }
};

at::Tensor bytes_of(const std::string& text) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

std::string text_of(const at::Tensor& bytes) {
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}

}  // namespace

std::unique_ptr<Pending> done() {
  struct Done : Pending {
    void wait() override {}
  };
  return std::make_unique<Done>();
}

Absent::Absent(const std::string& what, std::vector<int> ranks)
    : Error(Code::kRanks, what, "", "see their output, and that every node reaches this one"),
      ranks_(std::move(ranks)) {}

World& single() {
  static Single world;
  return world;
}

bool World::any(bool flag) {
  if (size() == 1) return flag;
  at::Tensor count = at::full({1}, flag ? 1.0 : 0.0, at::kDouble);
  sum(count);
  return count.item<double>() > 0;
}

std::vector<std::string> World::gather_text(const std::string& text) {
  std::vector<std::string> all;
  for (const auto& bytes : gather(bytes_of(text))) all.push_back(text_of(bytes));
  return all;
}

std::string World::broadcast_text(const std::string& text, int root) {
  if (size() == 1) return text;
  const bool gives = rank() == root;
  const at::Tensor length = at::full({1}, static_cast<int64_t>(gives ? text.size() : 0), at::kLong);
  broadcast(length, root);
  at::Tensor bytes = gives ? bytes_of(text) : at::empty({length.item<int64_t>()}, at::kByte);
  if (bytes.numel() > 0) broadcast(bytes, root);
  return text_of(bytes);
}

void World::require_same(const std::string& what, const std::string& text) {
  if (size() == 1 || !any(broadcast_text(text) != text)) return;
  const auto all = gather_text(text);
  for (size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0])
      throw Error(
          Code::kRanks,
          fmt::format("rank {} has another {} than rank 0: {} and {}", r, what, all[r], all[0]), "",
          "give every rank the same");
}

}  // namespace lehr::dist
