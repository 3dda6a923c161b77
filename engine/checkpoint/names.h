// The names inside a run's checkpoints/ folder, for the two files that deal with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lehr::checkpoint {

constexpr const char* kTemporaryMark = ".tmp-";    // step-00000123.tmp-<id>: being written
constexpr const char* kTrashMark = ".trash-";      // .trash-step-00000123-<id>: being deleted
constexpr const char* kCorruptMark = ".corrupt-";  // .corrupt-step-00000123-<id>: set aside

constexpr const char* kPartMark = "part-";  // part-00001: what another process has written

std::string step_name(int64_t step);                           // "step-00000123"
std::optional<int64_t> step_of_name(const std::string& name);  // of a committed one only

}  // namespace lehr::checkpoint
