#include "engine/base/host_bytes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>

#include "engine/base/error.h"

namespace lehr {
namespace {

struct Dtype {
  at::ScalarType type;
  const char* name;
};
constexpr Dtype kDtypes[] = {{at::kDouble, "F64"},    {at::kFloat, "F32"}, {at::kHalf, "F16"},
                             {at::kBFloat16, "BF16"}, {at::kLong, "I64"},  {at::kInt, "I32"},
                             {at::kShort, "I16"},     {at::kChar, "I8"},   {at::kByte, "U8"},
                             {at::kBool, "BOOL"}};

}  // namespace

HostBytes::HostBytes(const at::Tensor& tensor)
    : held_(tensor.detach().to(at::kCPU).contiguous().resolve_conj().resolve_neg()) {}

void for_each_piece(const NamedTensors& tensors, DeviceRuntime* device,
                    const std::function<void(const void*, uint64_t)>& f) {
  constexpr int64_t kPiece = 16 << 20;
  struct Piece {
    at::Tensor memory;
    int64_t bytes = 0;
    std::unique_ptr<CopyOut> copy;
  } pieces[2];
  size_t next = 0;
  const auto finish = [&](Piece& piece) {
    if (!piece.copy) return;
    piece.copy->wait();
    piece.copy.reset();
    f(piece.memory.const_data_ptr(), piece.bytes);
  };
  const auto finish_all = [&] {
    for (size_t i : {0, 1}) finish(pieces[(next + i) % 2]);
  };
  for (const auto& named : tensors) {
    if (!device || named.tensor.is_cpu()) {
      finish_all();
      const HostBytes bytes(named.tensor);
      f(bytes.data(), bytes.size());
      continue;
    }
    const at::Tensor flat = named.tensor.detach().contiguous().view({-1}).view(at::kByte);
    for (int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
      Piece& piece = pieces[next++ % 2];
      finish(piece);
      if (!piece.memory.defined()) piece.memory = device->pin(at::empty({kPiece}, at::kByte));
      piece.bytes = std::min(kPiece, flat.numel() - begin);
      piece.copy =
          device->copy_out({flat.narrow(0, begin, piece.bytes)}, {piece.memory.mutable_data_ptr()});
    }
  }
  finish_all();
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  const HostBytes x(a), y(b);
  return x.size() == 0 || std::memcmp(x.data(), y.data(), x.size()) == 0;
}

TensorView described(const NamedTensor& named) {
  const auto type = named.tensor.scalar_type();
  for (const auto& dtype : kDtypes)
    if (dtype.type == type)
      return {named.name, dtype.name, named.tensor.sizes().vec(), nullptr,
              static_cast<uint64_t>(named.tensor.nbytes())};
  throw Error(Code::kInternal,
              fmt::format("a tensor of dtype {} cannot be saved", at::toString(type)), named.name);
}

HostViews::HostViews(const NamedTensors& tensors) {
  for (const auto& named : tensors) add(named);
}

void HostViews::add(const NamedTensor& named) {
  TensorView view = described(named);
  held_.emplace_back(named.tensor);
  view.data = held_.back().data();
  views_.push_back(std::move(view));
}

}  // namespace lehr
