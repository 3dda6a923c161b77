// Keyed dropout: whether an element is kept is a function of (seed, step, layer, sample id,
// position in the sample), so a mask does not depend on micro-batches, ranks, threads or where a
// run was cut. The mask is made on the CPU, 8 elements from one Philox block (about 1 ns each), and
// moved.
#include <ATen/ATen.h>

#include "engine/base/error.h"
#include "engine/base/random.h"
#include "kernels/common/parallel.h"
#include "models/model.h"

namespace lehr::models {
namespace {

thread_local const DropoutKey* current_key = nullptr;

constexpr int64_t kPerBlock = 8;  // 16 bits of a block for each element
constexpr int64_t kSamplesPerTask = 16;

// Ones where kept, zeros where dropped: `row` elements of one sample.
void draw_row(float* mask, int64_t row, uint32_t drop_below, uint64_t key, uint64_t sample,
              uint32_t layer) {
  for (int64_t begin = 0; begin < row; begin += kPerBlock) {
    const auto block =
        philox4x32({static_cast<uint32_t>(begin / kPerBlock), layer, static_cast<uint32_t>(sample),
                    static_cast<uint32_t>(sample >> 32)},
                   key);
    const int64_t count = std::min(kPerBlock, row - begin);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = block[static_cast<size_t>(i / 2)] >> (16 * (i % 2)) & 0xffffu;
      mask[begin + i] = bits >= drop_below ? 1.0f : 0.0f;
    }
  }
}

at::Tensor draw(const at::Tensor& x, uint32_t drop_below, int64_t layer, const DropoutKey& key) {
  const auto& samples = *key.samples;
  // on its way to a device nobody waits for it
  const bool crosses = !x.is_cpu();
  at::Tensor mask = at::empty(x.sizes(), at::TensorOptions(at::kFloat).pinned_memory(crosses));
  float* values = mask.mutable_data_ptr<float>();
  const int64_t rows = x.size(0), row = rows ? x.numel() / rows : 0;
  const uint64_t stream = static_cast<uint64_t>(Stream::kDropout) << 56;
  const uint64_t philox_key = mix64(mix64(key.seed ^ stream) ^ static_cast<uint64_t>(key.step));
  kernels::parallel_for(0, rows, kSamplesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      draw_row(values + r * row, row, drop_below, philox_key,
               static_cast<uint64_t>(samples[static_cast<size_t>(r)]),
               static_cast<uint32_t>(layer));
  });
  if (crosses) mask = mask.to(x.device(), at::kFloat, /*non_blocking=*/true);
  return mask.to(x.options());
}

}  // namespace

void set_dropout_key(const DropoutKey* key) { current_key = key; }
const DropoutKey* dropout_key() { return current_key; }

at::Tensor dropout(const at::Tensor& x, double p, int64_t layer, bool training) {
  if (!training || p == 0) return x;
  // the share dropped in 1/65536; the survivors are scaled by exactly what it makes of p
  const auto drop_below = static_cast<uint32_t>(std::lround(p * 65536));
  const double scale = 65536.0 / (65536.0 - drop_below);
  if (x.is_meta()) return x * at::empty_like(x) * scale;
  if (!current_key || !current_key->samples)
    throw Error(Code::kInternal, "dropout without a key: call set_dropout_key before forward");
  if (current_key->recorded)
    throw Error(Code::kRecipe, "dropout draws anew every step, a recorded graph repeats itself",
                "training.cuda_graph", "set it to false, or the model's dropout to 0");
  if (static_cast<int64_t>(current_key->samples->size()) != x.size(0))
    throw Error(Code::kInternal, fmt::format("dropout has {} sample ids for a batch of {}",
                                             current_key->samples->size(), x.size(0)));
  return x * draw(x, drop_below, layer, *current_key) * scale;
}

}  // namespace lehr::models
