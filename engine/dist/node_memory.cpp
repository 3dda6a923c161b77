#include "engine/dist/node_memory.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kChunk = 512 << 10;  // bytes of a rank that are shown at a time
constexpr int64_t kHeader = 4096;
constexpr auto kSpin = std::chrono::microseconds(20);  // before a rank that waits sleeps
constexpr long kSliceNs = 20'000'000;                  // of that sleep, until it looks who is gone

void futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  const timespec slice{0, kSliceNs};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation, value, &slice, nullptr, 0);
}

struct flock byte_of(int rank, short type) {
  struct flock lock {};
  lock.l_type = type, lock.l_whence = SEEK_SET, lock.l_start = rank, lock.l_len = 1;
  return lock;
}

}  // namespace

// How many chunks each rank has shown, a cache line each; wraps around. Two slots a rank follow:
// one that is shown while others still read the one before. Who shows a chunk has read all ranks'
// before it, so a slot is free again one chunk later.
struct NodeMemory::Header {
  struct alignas(64) Line {
    std::atomic<uint32_t> shown;
    uint64_t what[2];  // of each slot: size, dtype and order of the whole
  } lines[kMostRanks];
};

static int64_t bytes_for(int size) { return kHeader + 2 * size * kChunk; }

NodeMemory::NodeMemory(std::string path, int fd, void* memory, int rank, int size,
                       std::chrono::milliseconds timeout)
    : path_(std::move(path)),
      fd_(fd),
      memory_(memory),
      rank_(rank),
      size_(size),
      timeout_(timeout) {
  static_assert(sizeof(Header) <= kHeader && std::atomic<uint32_t>::is_always_lock_free);
}

NodeMemory::~NodeMemory() {
  munmap(memory_, static_cast<size_t>(bytes_for(size_)));
  close(fd_);
}

// A lock on a rank's byte says that it lives: the kernel lets it go with the process, however that
// ends.
std::unique_ptr<NodeMemory> NodeMemory::map(std::string path, int fd, int rank, int size,
                                            std::chrono::milliseconds timeout) {
  struct flock mine = byte_of(rank, F_WRLCK);
  void* memory = MAP_FAILED;
  if (fcntl(fd, F_OFD_SETLK, &mine) == 0)
    memory = mmap(nullptr, static_cast<size_t>(bytes_for(size)), PROT_READ | PROT_WRITE, MAP_SHARED,
                  fd, 0);
  if (memory == MAP_FAILED) {
    close(fd);
    return nullptr;
  }
  return std::unique_ptr<NodeMemory>(
      new NodeMemory(std::move(path), fd, memory, rank, size, timeout));
}

std::unique_ptr<NodeMemory> NodeMemory::make(int size, std::chrono::milliseconds timeout) {
  std::random_device random;
  const std::string path = fmt::format("/dev/shm/lehr-{:08x}{:08x}", random(), random());
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return nullptr;
  // taken now: a full /dev/shm would end the process at the first write
  std::unique_ptr<NodeMemory> memory;
  if (posix_fallocate(fd, 0, bytes_for(size)) == 0)
    memory = map(path, fd, 0, size, timeout);
  else
    close(fd);
  if (!memory) unlink(path.c_str());
  return memory;
}

std::unique_ptr<NodeMemory> NodeMemory::open(const std::string& path, int rank, int size,
                                             std::chrono::milliseconds timeout) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  return fd < 0 ? nullptr : map(path, fd, rank, size, timeout);
}

void NodeMemory::remove_name() { unlink(path_.c_str()); }

NodeMemory::Header& NodeMemory::header() const { return *static_cast<Header*>(memory_); }

char* NodeMemory::slot(int rank, uint32_t chunk) const {
  return static_cast<char*>(memory_) + kHeader + (2 * rank + chunk % 2) * kChunk;
}

void NodeMemory::post() {
  std::atomic<uint32_t>& shown = header().lines[rank_].shown;
  shown.store(++posted_, std::memory_order_release);
  futex(shown, FUTEX_WAKE, INT32_MAX);
}

void NodeMemory::require_there(int rank) const {
  struct flock other = byte_of(rank, F_WRLCK);
  if (fcntl(fd_, F_OFD_GETLK, &other) == 0 && other.l_type == F_UNLCK)
    throw std::runtime_error(fmt::format("rank {} of this node is gone", rank));
}

void NodeMemory::wait_for(int rank) {
  std::atomic<uint32_t>& shown = header().lines[rank].shown;
  const auto is_there = [&] {
    return static_cast<int32_t>(shown.load(std::memory_order_acquire) - posted_) >= 0;
  };
  const auto begin = Clock::now();
  while (Clock::now() - begin < kSpin)
    if (is_there()) return;
  for (uint32_t seen; seen = shown.load(std::memory_order_acquire), !is_there();) {
    futex(shown, FUTEX_WAIT, seen);
    if (is_there()) return;
    require_there(rank);
    if (Clock::now() - begin > timeout_)
      throw std::runtime_error(
          fmt::format("timed out after {} s of waiting for rank {} of this node",
                      static_cast<double>(timeout_.count()) / 1e3, rank));
  }
}

void NodeMemory::sum(const at::Tensor& tensor, bool in_tree) {
  combine(tensor, in_tree ? How::kInTree : How::kInOrder);
}

void NodeMemory::share(const at::Tensor& tensor) { combine(tensor, How::kFirst); }

void NodeMemory::combine(const at::Tensor& tensor, How how) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = tensor.view({-1});
  const uint64_t what = static_cast<uint64_t>(flat.numel()) << 16 |
                        static_cast<uint64_t>(flat.scalar_type()) << 2 | static_cast<uint64_t>(how);
  const int64_t step = kChunk / flat.element_size();
  for (int64_t begin = 0; begin < flat.numel(); begin += step) {
    const at::Tensor part = flat.slice(0, begin, std::min(begin + step, flat.numel()));
    const uint32_t chunk = posted_;
    if (how != How::kFirst || rank_ == 0)
      std::memcpy(slot(rank_, chunk), part.const_data_ptr(), part.nbytes());
    header().lines[rank_].what[chunk % 2] = what;
    post();
    std::vector<at::Tensor> all;
    for (int rank = 0; rank < size_; ++rank) {
      wait_for(rank);
      if (header().lines[rank].what[chunk % 2] != what)
        throw std::runtime_error(fmt::format("rank {} of this node sums something else", rank));
      all.push_back(at::from_blob(slot(rank, chunk), part.sizes(), part.options()));
    }
    at::Tensor into = part;
    if (how == How::kFirst) {
      if (rank_ != 0) std::memcpy(part.mutable_data_ptr(), slot(0, chunk), part.nbytes());
      continue;
    }
    if (how == How::kInOrder) {
      at::add_out(into, all[0], all[1]);
      for (size_t rank = 2; rank < all.size(); ++rank) into.add_(all[rank]);
      continue;
    }
    // no slot is written to: other ranks read it
    size_t apart = 1;
    for (; 2 * apart < all.size(); apart *= 2)
      for (size_t rank = 0; rank < all.size(); rank += 2 * apart)
        all[rank] = all[rank] + all[rank + apart];
    at::add_out(into, all[0], all[apart]);
  }
}

}  // namespace lehr::dist
