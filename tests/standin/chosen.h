// The device of these tests: the stand-in, or with LEHR_TEST_DEVICE=cuda a GPU, whose bits are its
// own and of which nothing is counted. Included first, so that it is loaded before any ATen call.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "tests/standin/standin.h"

namespace lehr::standin {

class Chosen {
 public:
  Chosen() {
    const char* name = std::getenv("LEHR_TEST_DEVICE");
    is_gpu = name && std::string(name) == "cuda";
    if (is_gpu) {
      runtime = load_cuda();
      return;
    }
    void* library = dlopen(LEHR_BINARY_DIR "/tests/libstandin.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    runtime = registered_device("standin");
    count_ = reinterpret_cast<Count>(dlsym(library, "lehr_standin_counts"));
  }
  c10::Device device(int index) const {
    return {runtime->type(), static_cast<c10::DeviceIndex>(is_gpu ? 0 : index)};
  }
  Counts counts(int index) const {
    Counts counts;
    if (count_) count_(index, &counts);
    return counts;
  }

  DeviceRuntime* runtime = nullptr;
  bool is_gpu = false;

 private:
  using Count = void (*)(int, Counts*);
  Count count_ = nullptr;
};

inline const Chosen kChosen;

}  // namespace lehr::standin
