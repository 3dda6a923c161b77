#include "tests/standin/standin.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Backtrace.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "engine/base/hash.h"
#include "models/products.h"

namespace lehr::standin {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

thread_local c10::DeviceIndex current = 0;

// The memory of one device, mapped twice: at the addresses that tensors show, where every access of
// the host is a SIGSEGV, and at others that only this file knows.
class Memory {
 public:
  void* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (!shown_) map();
    size_t size = 512;
    while (size < bytes) size *= 2;
    auto& free = free_[size];
    if (free.empty()) {
      TORCH_CHECK(used_ + size <= kBytes, "the stand-in device is out of memory");
      free.push_back(shown_ + used_);
      used_ += size;
    }
    char* memory = free.back();
    free.pop_back();
    sizes_[memory] = size;
    std::memset(memory - shown_ + hidden_, 0xff, bytes);  // NaN, until somebody writes
    return memory;
  }
  void release(void* memory) {
    const std::lock_guard lock(mutex_);
    free_[sizes_.extract(memory).mapped()].push_back(static_cast<char*>(memory));
  }
  bool holds(const void* p) const { return shown_ && p >= shown_ && p < shown_ + kBytes; }
  bool hides(const void* p) const { return hidden_ && p >= hidden_ && p < hidden_ + kBytes; }
  char* hidden(const void* p) const { return static_cast<const char*>(p) - shown_ + hidden_; }

 private:
  static constexpr size_t kBytes = size_t{4} << 30;
  void map() {
    const int file = memfd_create("standin", MFD_CLOEXEC);
    TORCH_CHECK(file >= 0 && ftruncate(file, kBytes) == 0, "no memory for the stand-in device");
    const auto view = [&](int protection) {
      void* memory = mmap(nullptr, kBytes, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
      TORCH_CHECK(memory != MAP_FAILED, "no address space for the stand-in device");
      return static_cast<char*>(memory);
    };
    hidden_ = view(PROT_READ | PROT_WRITE);
    shown_ = view(PROT_NONE);
    close(file);
  }
  std::mutex mutex_;
  char *shown_ = nullptr, *hidden_ = nullptr;
  size_t used_ = 0;
  std::map<size_t, std::vector<char*>> free_;
  std::unordered_map<void*, size_t> sizes_;
};

// A copy from pinned memory that the host has not waited for: the memory must stay as it is.
struct UnderWay {
  at::Tensor from;
  std::string hash;
};

struct Device {
  Memory memory;
  std::atomic<int64_t> in{0}, out{0}, across{0}, waits{0}, allocations{0};
  std::mutex mutex;
  std::vector<UnderWay> under_way;
};
std::array<Device, kDevices>& devices() {
  static auto* all = new std::array<Device, kDevices>;  // tensors may outlive statics
  return *all;
}
Device& of(c10::Device device) {
  return devices().at(static_cast<size_t>(device.index() < 0 ? current : device.index()));
}

std::string hash_of(const at::Tensor& host) {
  return xxh3_128(host.const_data_ptr(), host.nbytes());
}

// LEHR_STANDIN_TRACE=1 says where.
void note(const char* what, const std::string& more = "") {
  static const bool is_wanted = std::getenv("LEHR_STANDIN_TRACE") != nullptr;
  if (is_wanted)
    fprintf(stderr, "standin: %s %s\n%s\n", what, more.c_str(), c10::get_backtrace(1, 40).c_str());
}

void wait_for(Device& device, const std::string& why) {
  ++device.waits;
  note("wait", why);
  const std::lock_guard lock(device.mutex);
  for (const auto& copy : std::exchange(device.under_way, {}))
    TORCH_CHECK(hash_of(copy.from) == copy.hash,
                "pinned memory was written while a copy from it was under way");
}

class Allocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    Device& device = of({kType, current});
    ++device.allocations;
    void* memory = bytes == 0 ? nullptr : device.memory.allocate(bytes);
    return {memory, memory, &release, {kType, current}};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(hidden(to), hidden(from), bytes);
  }
  static char* hidden(const void* p) {
    for (auto& device : devices())
      if (device.memory.holds(p)) return device.memory.hidden(p);
    TORCH_CHECK(false, "no memory of the stand-in device");
  }

 private:
  static void release(void* p) {
    for (auto& device : devices())
      if (device.memory.holds(p)) device.memory.release(p);
  }
};
Allocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &allocator);

// Plain memory that is remembered as pinned.
class PinnedAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    add(memory, bytes);
    return {memory, memory, &release, c10::DeviceType::CPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  static void add(void* memory, size_t bytes) {
    const std::lock_guard lock(mutex());
    blocks()[static_cast<char*>(memory)] = bytes;
  }
  static void remove(void* memory) {
    const std::lock_guard lock(mutex());
    blocks().erase(static_cast<char*>(memory));
  }
  static bool holds(const void* p) {
    const std::lock_guard lock(mutex());
    auto after = blocks().upper_bound(static_cast<char*>(const_cast<void*>(p)));
    return after != blocks().begin() && p < std::prev(after)->first + std::prev(after)->second;
  }

 private:
  static void release(void* memory) {
    remove(memory);
    std::free(memory);
  }
  static std::mutex& mutex() {
    static auto* mutex = new std::mutex;
    return *mutex;
  }
  static std::map<char*, size_t>& blocks() {
    static auto* blocks = new std::map<char*, size_t>;
    return *blocks;
  }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kType;
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device d) const override {
    return {kType, std::exchange(current, d.index() < 0 ? current : d.index())};
  }
  c10::Device getDevice() const override { return {kType, current}; }
  void setDevice(c10::Device d) const override { exchangeDevice(d); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { exchangeDevice(d); }
  c10::Stream getStream(c10::Device d) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, {kType, d.index() < 0 ? current : d.index()});
  }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  // one stream a device: everything is in order
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return std::exchange(current, index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
  bool isPinnedPtr(const void* data) const override { return PinnedAllocator::holds(data); }
  at::Allocator* getPinnedMemoryAllocator() const override {
    static PinnedAllocator pinned;
    return &pinned;
  }
};

// The same elements as a tensor of the CPU.
at::Tensor as_host(const at::Tensor& t) {
  if (t.numel() == 0) return at::empty_strided(t.sizes(), t.strides(), t.scalar_type());
  return at::from_blob(Allocator::hidden(t.data_ptr()), t.sizes(), t.strides(),
                       at::TensorOptions(t.scalar_type()));
}

// Of a product, as Lehr multiplies on the CPU (models/products.h): where that has no instructions
// for low precision, in float32 of the rounded values.
at::Tensor operand(const at::Tensor& t) {
  const at::Tensor host = as_host(t);
  return models::products_in_float(host) ? host.to(at::kFloat) : host;
}

// The copy of a result, in the same memory order.
at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  if (!host.defined()) return host;
  const c10::DeviceGuard guard(device);
  const bool is_dense = host.is_non_overlapping_and_dense();
  at::Tensor made =
      at::empty_strided(host.sizes(), is_dense ? host.strides() : host.contiguous().strides(),
                        host.options().device(device));
  as_host(made).copy_(host);
  return made;
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type,
                 std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> type, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(type));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (from.numel() > 0) {
    (from.is_cpu() ? as_host(to)
     : to.is_cpu() ? to
                   : as_host(to))
        .copy_(from.is_cpu() ? from : as_host(from));
  }
  if (from.is_cpu() || to.is_cpu()) {
    const at::Tensor& host = from.is_cpu() ? from : to;
    Device& device = of(from.is_cpu() ? to.device() : from.device());
    ++(from.is_cpu() ? device.in : device.out);
    note(from.is_cpu() ? "in" : "out");
    const bool pinned = PinnedAllocator::holds(host.const_data_ptr());
    if (!non_blocking || !pinned) {
      wait_for(device, from.is_cpu() ? "for a copy in" : "for a copy out");
    } else if (from.is_cpu()) {
      const std::lock_guard lock(device.mutex);
      device.under_way.push_back({from, hash_of(from)});
    }
  } else if (from.device() != to.device()) {
    ++of(to.device()).across;
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Tensor as_strided(const at::Tensor& t, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      t, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
}

at::Tensor reshape_alias(const at::Tensor& t, c10::SymIntArrayRef size,
                         c10::SymIntArrayRef stride) {
  return as_strided(t, size, stride, t.storage_offset());
}

at::Tensor view(const at::Tensor& t, c10::SymIntArrayRef size) {
  return at::native::view(t, C10_AS_INTARRAYREF_SLOW(size));
}

const at::Tensor& resize(const at::Tensor& t, c10::SymIntArrayRef sizes,
                         std::optional<at::MemoryFormat>) {
  const auto size = C10_AS_INTARRAYREF_SLOW(sizes);
  const size_t bytes = (c10::multiply_integers(size) + t.storage_offset()) * t.itemsize();
  if (t.storage().nbytes() < bytes) {
    const c10::DeviceGuard guard(t.device());
    t.storage().set_data_ptr_noswap(allocator.allocate(bytes));
    t.storage().set_nbytes(bytes);
  }
  t.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return t;
}

using Maybe = std::optional<at::Tensor>;

Maybe maybe_host(const Maybe& t) { return t && t->defined() ? Maybe(as_host(*t)) : Maybe(); }

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                       bool transposed, at::IntArrayRef output_padding, int64_t groups) {
  const Maybe b = bias && bias->defined() ? Maybe(operand(*bias)) : Maybe();
  const at::Tensor made = at::convolution(operand(x), operand(weight), b, stride, padding, dilation,
                                          transposed, output_padding, groups);
  return to_device(made.to(x.scalar_type()), x.device());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
    at::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> wanted) {
  const int64_t channels = weight.size(0);
  const auto [of_x, of_weight, of_bias] = at::convolution_backward(
      operand(grad), operand(x), operand(weight), at::IntArrayRef(channels), stride, padding,
      dilation, transposed, output_padding, groups, wanted);
  const auto result = [&](const at::Tensor& t) {
    return t.defined() ? to_device(t.to(x.scalar_type()), x.device()) : t;
  };
  return {result(of_x), result(of_weight), result(of_bias)};
}

// Attention by the CPU's fused kernel, where it has one.
int64_t choose_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Maybe& mask, double dropout, bool is_causal,
                         std::optional<double> scale, bool gqa) {
  const auto choice = at::_fused_sdp_choice(as_host(q), as_host(k), as_host(v), maybe_host(mask),
                                            dropout, is_causal, scale, gqa);
  const bool fused = choice == static_cast<int64_t>(at::SDPBackend::flash_attention);
  return static_cast<int64_t>(fused ? at::SDPBackend::overrideable : at::SDPBackend::math);
}

using Nine = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt,
                        at::Tensor, at::Tensor, at::Tensor>;
Nine attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Maybe& mask,
               double dropout, bool is_causal, bool, std::optional<double> scale) {
  const auto [out, log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
      as_host(q), as_host(k), as_host(v), dropout, is_causal, maybe_host(mask), scale);
  return {to_device(out, q.device()),
          to_device(log_sums, q.device()),
          {},
          {},
          q.sym_size(2),
          k.sym_size(2),
          {},
          {},
          {}};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& mask, std::array<bool, 4>, const at::Tensor& out, const at::Tensor& log_sums,
    const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt, double dropout, bool is_causal,
    const at::Tensor&, const at::Tensor&, std::optional<double> scale) {
  const auto [of_q, of_k, of_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_host(grad), as_host(q), as_host(k), as_host(v), as_host(out), as_host(log_sums), dropout,
      is_causal, maybe_host(mask), scale);
  const auto device = q.device();
  return {to_device(of_q, device), to_device(of_k, device), to_device(of_v, device), {}};
}

// Everything else: the CPU's kernel on the same memory. Results come to the device; what is the
// argument itself, or a view of it, is returned as that.
void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  struct Seen {
    at::Tensor tensor, host;
  };
  std::vector<Seen> seen;
  std::optional<c10::Device> device;
  std::optional<at::ScalarType> low;  // of a product that is done in float32
  static const std::set<std::string> kProducts{"aten::mm", "aten::addmm", "aten::bmm"};
  const auto& schema = op.schema();
  const bool multiplies = kProducts.contains(schema.name());
  const auto host = [&](const at::Tensor& t) {
    if (!t.defined() || t.device().type() != kType) return t;
    device = t.device();
    seen.push_back({t, multiplies ? operand(t) : as_host(t)});
    if (seen.back().host.scalar_type() != t.scalar_type()) low = t.scalar_type();
    return seen.back().host;
  };
  for (size_t i = stack->size() - schema.arguments().size(); i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = host(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(host(t));
      value = std::move(list);
    } else if (value.isOptionalTensorList()) {
      c10::List<Maybe> list;
      for (const Maybe& t : value.toOptionalTensorVector()) list.push_back(t ? Maybe(host(*t)) : t);
      value = std::move(list);
    } else if (value.isDevice()) {
      device = value.toDevice();
      value = c10::Device(c10::DeviceType::CPU);
    }
  }
  TORCH_CHECK(device, "stand-in device: no tensor of it in ", schema.name());
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  const auto back = [&](const at::Tensor& t) {
    if (!t.defined()) return t;
    for (const auto& [tensor, host] : seen) {
      if (t.is_same(host)) {
        if (t.sizes() == tensor.sizes() && t.scalar_type() == tensor.scalar_type()) return tensor;
        // memory for a result, which was not known in its size or was made in float32
        tensor.resize_(t.sizes());
        as_host(tensor).copy_(t);
        return tensor;
      }
      if (t.numel() == 0 || !of(tensor.device()).memory.hides(t.const_data_ptr()) ||
          host.numel() == 0)
        continue;
      if (t.storage().is_alias_of(host.storage()))
        return tensor.as_strided(t.sizes(), t.strides(),
                                 tensor.storage_offset() + t.storage_offset());
    }
    return to_device(low ? t.to(*low) : t, *device);
  };
  static const std::set<std::string> kShapedByValues{"aten::nonzero", "aten::masked_select",
                                                     "aten::_unique2"};
  bool waits = kShapedByValues.contains(schema.name());
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = back(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(back(t));
      value = std::move(list);
    } else if (!value.isNone()) {
      waits = true;
    }
  }
  if (waits) wait_for(of(*device), schema.name());
}

// As late as they may be: the device's state is read at a block(), or where none comes, after a
// while; the host's memory is written at a wait().
class Copies : public CopyOut {
 public:
  Copies(const std::vector<at::Tensor>& from, const std::vector<void*>& to) : to_(to) {
    for (const auto& tensor : from) from_.push_back(tensor.detach());
    for (size_t i = 0; i < to.size(); ++i) {
      TORCH_CHECK(from[i].numel() == 0 || PinnedAllocator::holds(to[i]),
                  "a copy to memory that is not pinned");
      std::memset(to[i], 0xee, from[i].nbytes());
      ++of(from[i].device()).out;
    }
  }
  void block() override {
    const std::lock_guard lock(mutex_);
    if (!taken_.empty()) return;
    for (const auto& tensor : from_) taken_.push_back(as_host(tensor).contiguous().clone());
  }
  void wait() override {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    block();
    for (size_t i = 0; i < to_.size(); ++i)
      if (taken_[i].nbytes() > 0)
        std::memcpy(to_[i], taken_[i].const_data_ptr(), taken_[i].nbytes());
  }

 private:
  std::vector<at::Tensor> from_, taken_;
  const std::vector<void*> to_;
  std::mutex mutex_;
};

// With LEHR_STANDIN_COUNTS, a process leaves its device's there.
struct Report {
  ~Report() {
    const char* path = std::getenv("LEHR_STANDIN_COUNTS");
    Counts c;
    lehr_standin_counts(0, &c);
    if (!path || c.allocations == 0) return;
    FILE* file = std::fopen((std::string(path) + "-" + std::to_string(getpid())).c_str(), "w");
    fprintf(file, "{\"in\": %ld, \"out\": %ld, \"waits\": %ld}\n", c.in, c.out, c.waits);
    std::fclose(file);
  }
} report;

// Of every pair of marks, half a second.
class Timer : public DeviceTimer {
 public:
  void begin() override { begun_ = true; }
  void end() override { pairs_ += std::exchange(begun_, false) ? 1 : 0; }
  double seconds() override { return pairs_ < 2 ? 0 : 0.5; }

 private:
  bool begun_ = false;
  int64_t pairs_ = 0;
};

class Runtime : public DeviceRuntime {
 public:
  c10::DeviceType type() const override { return kType; }
  std::vector<DeviceInfo> devices() override {
    return std::vector<DeviceInfo>(kDevices,
                                   {"stand-in", int64_t{1} << 30, int64_t{1} << 30, 0, 0});
  }
  std::string versions() override { return "stand-in"; }
  at::Tensor pin(const at::Tensor& host) override {
    return host.is_pinned() ? host : host.pin_memory();
  }
  at::Tensor copy_in(const at::Tensor& host) override {
    TORCH_CHECK(host.is_pinned(), "a copy from memory that is not pinned");
    return host.to(c10::Device(kType, current), /*non_blocking=*/true);
  }
  std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>& from,
                                    const std::vector<void*>& to) override {
    return std::make_unique<Copies>(from, to);
  }
  void lock_pages(void* memory, size_t bytes) override { PinnedAllocator::add(memory, bytes); }
  void unlock_pages(void* memory) override { PinnedAllocator::remove(memory); }
  void synchronize() override { wait_for(of({kType, current}), "synchronize"); }
  int64_t peak_bytes() override { return 0; }
  std::unique_ptr<DeviceTimer> timer() override { return std::make_unique<Timer>(); }
  std::unique_ptr<RecordedWork> record(const std::function<void(bool)>&) override {
    TORCH_CHECK(false, "the stand-in device records nothing");
  }
};

const struct Registration {
  Registration() {
    c10::register_privateuse1_backend("standin");
    at::RegisterPrivateUse1HooksInterface(new Hooks);
    static Runtime runtime;
    register_device("standin", &runtime);
  }
} registration;

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("as_strided", &as_strided);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("view", &view);
  m.impl("resize_", &resize);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  // which other devices would compute by smaller ops
  for (const char* op : {"native_layer_norm", "native_layer_norm_backward", "silu_backward"})
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  m.impl("_scaled_dot_product_fused_attention_overrideable", &attention);
  m.impl("_scaled_dot_product_fused_attention_overrideable_backward", &attention_backward);
}
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
// as the CPU's list, of the ops that Lehr's forwards use
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  using namespace at::autocast;
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(scaled_dot_product_attention, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(cat, promote)
  KERNEL_PRIVATEUSEONE(stack, promote)
}

}  // namespace lehr::standin

extern "C" void lehr_standin_counts(int device, lehr::standin::Counts* counts) {
  const auto& d = lehr::standin::devices().at(static_cast<size_t>(device));
  *counts = {d.in, d.out, d.across, d.waits, d.allocations};
}

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &lehr::standin::choose_attention)
}
