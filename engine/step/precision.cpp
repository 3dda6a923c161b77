#include "engine/step/precision.h"

#include <ATen/autocast_mode.h>
#include <fmt/format.h>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

// beyond this a further doubling could overflow the scaled loss itself
constexpr double kLargestScale = 16777216.0;  // 2^24

struct Entry {
  const char* name;
  std::optional<at::ScalarType> dtype;
};
const Entry kPrecisions[] = {{"fp32", std::nullopt},
                             {"bf16-mixed", at::kBFloat16},
                             {"fp16-mixed", at::kHalf},
                             {"bf16-master", std::nullopt}};

}  // namespace

std::optional<at::ScalarType> compute_dtype(const std::string& precision) {
  StringList names;
  for (const auto& entry : kPrecisions) {
    if (precision == entry.name) return entry.dtype;
    names.push_back(entry.name);
  }
  throw Error(Code::kRecipe, fmt::format("there is no precision `{}`", precision),
              "training.precision", fmt::format("write one of {}", fmt::join(names, ", ")));
}

Autocast::Autocast(at::DeviceType device, std::optional<at::ScalarType> dtype)
    : device_(device), on_(dtype.has_value()) {
  if (!on_) return;
  was_on_ = at::autocast::is_autocast_enabled(device_);
  old_dtype_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, *dtype);
  at::autocast::increment_nesting();
}

Autocast::~Autocast() {
  if (!on_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, was_on_);
  at::autocast::set_autocast_dtype(device_, old_dtype_);
}

LossScale::LossScale(const TrainingFields& fields)
    : on_(compute_dtype(fields.precision) == at::kHalf),
      value_(on_ ? fields.initial_loss_scale : 1),
      window_(fields.loss_scale_window) {}

void LossScale::grow() {
  if (!on_ || ++good_ < window_) return;
  good_ = 0;
  if (value_ * 2 <= kLargestScale) value_ *= 2;
}

bool LossScale::shrink() {
  if (!on_ || value_ <= 1) return false;
  value_ = std::max(1.0, value_ / 2);
  good_ = 0;
  return true;
}

}  // namespace lehr::step
