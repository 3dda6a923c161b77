// How long the training loop stands still per checkpoint. A state of the given size (a third
// weights, two thirds optimizer state, tensors of 4 MB) is saved while matrix products stand for
// the forward and backward pass between take() and finish_copy(); then every tensor is written to,
// as an update would.
//   bench_checkpoint [--megabytes N] [--saves N] [--work_ms N] [--folder DIR]
// Prints one JSON object. tests/peers/torch_save.py saves the same state the blocking way.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/checkpoint/saver.h"

namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// as many products of 512 x 512 as take `milliseconds` on this machine alone
class Work {
 public:
  explicit Work(double milliseconds) {
    run(20);  // warm
    double start = now_s();
    run(50);
    products_ =
        std::max<int64_t>(1, static_cast<int64_t>(milliseconds / 1e3 / ((now_s() - start) / 50)));
  }
  double run() {
    double start = now_s();
    run(products_);
    return now_s() - start;
  }

 private:
  void run(int64_t products) {
    for (int64_t i = 0; i < products; ++i) at::mm_out(c_, a_, b_);
  }
  at::Tensor a_ = at::randn({512, 512}), b_ = at::randn({512, 512}), c_ = at::empty({512, 512});
  int64_t products_ = 1;
};

}  // namespace

int main(int count, char** words) {
  int64_t megabytes = 50, saves = 9;
  double work_ms = 150;
  std::string folder = LEHR_BINARY_DIR "/bench_checkpoint";
  for (int i = 1; i + 1 < count; i += 2) {
    std::string option = words[i];
    if (option == "--megabytes") megabytes = std::atoll(words[i + 1]);
    if (option == "--saves") saves = std::atoll(words[i + 1]);
    if (option == "--work_ms") work_ms = std::atof(words[i + 1]);
    if (option == "--folder") folder = words[i + 1];
  }
  lehr::remove_tree(folder);
  lehr::NamedTensors weights, state;
  int64_t tensors = std::max<int64_t>(3, megabytes / 4);
  for (int64_t i = 0; i < tensors; ++i)
    (i % 3 == 0 ? weights : state).push_back({"t" + std::to_string(i), at::randn({1000, 1000})});

  Work work(work_ms);
  std::vector<double> alone, beside, blocked, committed;
  lehr::checkpoint::Saver saver(folder, {2, 0, 0, true});
  saver.prepare(weights, {}, state);
  for (int64_t i = 0; i < saves; ++i) alone.push_back(work.run());
  for (int64_t i = 0; i < saves; ++i) {
    lehr::checkpoint::Content content;
    content.step = i + 1;
    content.facts = "{}";
    double before = saver.blocked_s(), start = now_s();
    saver.take(std::move(content), weights, {}, state);
    beside.push_back(work.run());
    saver.finish_copy();
    blocked.push_back(saver.blocked_s() - before);
    for (auto* list : {&weights, &state})
      for (auto& one : *list) one.tensor.add_(1);
    saver.wait();
    committed.push_back(now_s() - start);
  }
  nlohmann::ordered_json report = {
      {"megabytes", tensors * 4},
      {"saves", saves},
      {"blocked_s", median(blocked)},
      {"blocked_s_first", blocked[0]},
      {"blocked_s_largest", *std::max_element(blocked.begin(), blocked.end())},
      {"committed_s", median(committed)},
      {"work_alone_s", median(alone)},
      {"work_beside_s", median(beside)}};
  std::puts(report.dump().c_str());
  lehr::remove_tree(folder);
  return 0;
}
