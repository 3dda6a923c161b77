// The float types that kernels read and write, as a plain value in their argument structs.
#pragma once

#include <cstdint>

namespace lehr::kernels {

enum class Float : uint8_t { kFloat32, kBFloat16, kFloat16 };

constexpr int64_t bytes_of(Float type) { return type == Float::kFloat32 ? 4 : 2; }

}  // namespace lehr::kernels
