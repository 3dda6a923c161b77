// Preloaded into a launcher and so in each of its ranks: on rank 2 a product takes twelve times as
// long as it does, however busy the machine is.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace at {
class Tensor;
}

// at::_ops::mm_out::call
extern "C" at::Tensor& _ZN2at4_ops6mm_out4callERKNS_6TensorES4_RS2_(const at::Tensor& a,
                                                                    const at::Tensor& b,
                                                                    at::Tensor& out) {
  using Product = at::Tensor& (*)(const at::Tensor&, const at::Tensor&, at::Tensor&);
  static const auto product =
      reinterpret_cast<Product>(dlsym(RTLD_NEXT, "_ZN2at4_ops6mm_out4callERKNS_6TensorES4_RS2_"));
  const auto begin = std::chrono::steady_clock::now();
  at::Tensor& result = product(a, b, out);
  const char* rank = std::getenv("RANK");
  if (!rank || std::strcmp(rank, "2") != 0) return result;
  std::fputs("a product on stderr\n", stderr);
  std::this_thread::sleep_for(11 * (std::chrono::steady_clock::now() - begin));
  return result;
}
