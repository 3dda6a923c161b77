// Work shared among LibTorch's threads. at::parallel_for itself is a template that runs on one
// thread wherever it is compiled without OpenMP, as everything that shares the precompiled header
// is; this is one call of it in a file that has OpenMP.
#pragma once

#include <cstdint>
#include <functional>

namespace lehr::kernels {

// body(first, last) on parts of [begin, end) of at least `grain`, on at::get_num_threads() threads
// at most; on this one where `grain` or more cover all, or from within another such call.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace lehr::kernels
