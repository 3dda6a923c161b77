#include "engine/step/flat.h"

#include <ATen/ATen.h>

namespace lehr::step {

Rows part_of(const at::Tensor& tensor, int64_t parts, int64_t part) {
  return rows_of_part(tensor.dim() == 0 ? 1 : tensor.size(0), parts, part);
}

at::Tensor rows_in(const at::Tensor& tensor, const Rows& rows) {
  if (rows.count == rows.of) return tensor;
  return rows.count == 0 ? at::Tensor() : tensor.narrow(0, rows.first, rows.count);
}

FlatGradients::FlatGradients(NamedTensors parameters, int64_t parts)
    : parameters_(std::move(parameters)), parts_(parts), options_(at::kFloat) {
  if (!parameters_.empty()) options_ = options_.device(parameters_[0].tensor.device());
  for (int64_t part = 0; part < parts; ++part) {
    int64_t numbers = 0;
    auto& offsets = offsets_.emplace_back();
    for (const auto& p : parameters_) {
      offsets.push_back(numbers);
      const Rows rows = part_of(p.tensor, parts, part);
      if (rows.of > 0) numbers += p.tensor.numel() / rows.of * rows.count;
    }
    numbers_ = std::max(numbers_, numbers);
  }
}

at::Tensor FlatGradients::empty() const { return at::empty({parts_ * numbers_}, options_); }

at::Tensor FlatGradients::part(const at::Tensor& flat, int64_t part) const {
  return flat.narrow(0, part * numbers_, numbers_);
}

at::Tensor FlatGradients::rows(const at::Tensor& part_alone, size_t i, int64_t part) const {
  const at::Tensor& p = parameters_[i].tensor;
  const Rows rows = part_of(p, parts_, part);
  if (rows.count == 0) return {};
  auto sizes = p.sizes().vec();
  if (!sizes.empty()) sizes[0] = rows.count;
  return part_alone.as_strided(
      sizes, p.strides(), part_alone.storage_offset() + offsets_[static_cast<size_t>(part)][i]);
}

template <class F>
void FlatGradients::for_each_part(const at::Tensor& flat, size_t i, F f) const {
  for (int64_t p = 0; p < parts_; ++p)
    if (at::Tensor piece = rows(part(flat, p), i, p); piece.defined())
      f(piece, part_of(parameters_[i].tensor, parts_, p));
}

void FlatGradients::put(const at::Tensor& flat, size_t i, const at::Tensor& whole) const {
  for_each_part(flat, i,
                [&](at::Tensor& piece, const Rows& rows) { piece.copy_(rows_in(whole, rows)); });
}

void FlatGradients::get(const at::Tensor& flat, size_t i, const at::Tensor& whole) const {
  for_each_part(flat, i,
                [&](at::Tensor& piece, const Rows& rows) { rows_in(whole, rows).copy_(piece); });
}

void FlatGradients::zero(const at::Tensor& flat, size_t i) const {
  for_each_part(flat, i, [](at::Tensor& piece, const Rows&) { piece.zero_(); });
}

}  // namespace lehr::step
