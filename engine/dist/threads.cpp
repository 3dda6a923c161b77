// A world whose ranks are threads of one process: each shows its tensor, and all read all.
#include <ATen/ATen.h>

#include <algorithm>
#include <barrier>
#include <map>
#include <mutex>

#include "engine/base/error.h"
#include "engine/dist/world.h"

namespace lehr::dist {
namespace {

struct Meeting {
  explicit Meeting(int size)
      : size(size), gate(size), shown(static_cast<size_t>(size)), colors(shown.size()) {}
  const int size;
  std::mutex mutex;
  std::barrier<> gate;
  std::vector<at::Tensor> shown;
  std::vector<int> colors;
  std::map<int, std::shared_ptr<Meeting>> parts;
};

class Thread : public World {
 public:
  Thread(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return meeting_->size; }
  void barrier(const std::string&) override { meeting_->gate.arrive_and_wait(); }
  std::unique_ptr<Pending> begin_sum(at::Tensor tensor) override {
    const auto all = gather(tensor);
    tensor.copy_(all[0]);
    for (size_t r = 1; r < all.size(); ++r) tensor.add_(all[r]);
    return done();
  }
  void sum_in_tree(at::Tensor tensor) override {
    auto all = gather(tensor);
    for (size_t step = 1; step < all.size(); step *= 2)
      for (size_t r = 0; r < all.size(); r += 2 * step) all[r] = all[r] + all[r + step];
    tensor.copy_(all[0]);
  }
  std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    begin_sum(all);
    mine.copy_(all.chunk(size())[rank_]);
    return done();
  }
  std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    all.copy_(at::cat(gather(mine)));
    return done();
  }
  void broadcast(at::Tensor tensor, int root) override {
    tensor.copy_(gather(tensor).at(static_cast<size_t>(root)));
  }
  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    const auto all = gather(mine);
    if (partner != rank_) theirs.copy_(all.at(static_cast<size_t>(partner)));
  }
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    meeting_->shown[static_cast<size_t>(rank_)] = tensor;
    meeting_->gate.arrive_and_wait();
    std::vector<at::Tensor> all;
    for (const auto& other : meeting_->shown)
      all.push_back(other.to(tensor.device(), other.scalar_type(), /*non_blocking=*/false,
                             /*copy=*/true));
    meeting_->gate.arrive_and_wait();
    return all;
  }
  std::unique_ptr<World> split(int color) override {
    Meeting& all = *meeting_;
    all.colors[static_cast<size_t>(rank_)] = color;
    all.gate.arrive_and_wait();
    const auto first = all.colors.begin();
    const auto members = static_cast<int>(std::count(first, all.colors.end(), color));
    const auto rank = static_cast<int>(std::count(first, first + rank_, color));
    if (rank == 0) {
      const std::lock_guard lock(all.mutex);
      all.parts[color] = std::make_shared<Meeting>(members);
    }
    all.gate.arrive_and_wait();
    auto part = std::make_unique<Thread>(all.parts.at(color), rank);
    all.gate.arrive_and_wait();
    return part;
  }

 private:
  std::shared_ptr<Meeting> meeting_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<World>> thread_worlds(int size) {
  auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<World>> worlds;
  for (int rank = 0; rank < size; ++rank) worlds.push_back(std::make_unique<Thread>(meeting, rank));
  return worlds;
}

}  // namespace lehr::dist
