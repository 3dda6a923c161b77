// Sums between ranks of one node, in memory that they share: a message over loopback is copied
// twice by the kernel, on the cores that compute (2 ranks on 2 cores, 0.8 MB of gradients: 2.7 ms
// of a core per rank and step).
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace lehr::dist {

class NodeMemory {
 public:
  // Of so many ranks at most: each reads what all have written.
  static constexpr int kMostRanks = 16;

  // A new segment, in memory that files name (/dev/shm), for `size` ranks; nullptr where the node
  // gives none. The file is there until it is removed by remove_name().
  static std::unique_ptr<NodeMemory> make(int size, std::chrono::milliseconds timeout);
  // That of another rank, `rank` of them; nullptr where it cannot be opened.
  static std::unique_ptr<NodeMemory> open(const std::string& path, int rank, int size,
                                          std::chrono::milliseconds timeout);
  ~NodeMemory();
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  const std::string& path() const { return path_; }
  void remove_name();
  // All ranks' sum, in place, with the same bits on all: in the order of the ranks, or by pairs of
  // neighbours, then pairs of pairs (a power of two of ranks). Any dtype that adds, contiguous, on
  // the CPU. All ranks call it in one order. Throws std::runtime_error when a rank is gone, or does
  // not come within the timeout.
  void sum(const at::Tensor& tensor, bool in_tree);
  void share(const at::Tensor& tensor);  // all get the first rank's; as sum

 private:
  struct Header;
  NodeMemory(std::string path, int fd, void* memory, int rank, int size,
             std::chrono::milliseconds timeout);
  static std::unique_ptr<NodeMemory> map(std::string path, int fd, int rank, int size,
                                         std::chrono::milliseconds timeout);
  Header& header() const;
  char* slot(int rank, uint32_t chunk) const;
  enum class How { kInOrder, kInTree, kFirst };
  void combine(const at::Tensor& tensor, How how);
  void post();
  void wait_for(int rank);
  void require_there(int rank) const;

  std::string path_;
  const int fd_;
  void* const memory_;
  const int rank_, size_;
  const std::chrono::milliseconds timeout_;
  uint32_t posted_ = 0;  // chunks that this rank has shown
};

}  // namespace lehr::dist
