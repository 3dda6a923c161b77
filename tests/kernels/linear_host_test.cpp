// The very launcher of kernels/linear on a stand-in for cuBLASLt: in this program the raw ops of
// the CPU run it, so that everything between autograd and cuBLASLt's calls is what a GPU runs.
#include <gtest/gtest.h>
#include <torch/library.h>

#include <barrier>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "tests/cuda_host/cublaslt.h"
#include "tests/kernels/linear_cases.h"

namespace lehr::kernels {
namespace {

// as a GPU's: what is picked depends on the alignment of pointers
class AlignedMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return {memory, memory, std::free, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
} aligned_memory;

bool tf32 = false;
int device_index = 0;
thread_local cublasStatus_t last = CUBLAS_STATUS_SUCCESS;

cublasStatus_t launch(const Product& product) {
  std::unique_ptr<void, decltype(&std::free)> memory(nullptr, std::free);
  const CublasLt lt{nullptr, nullptr, device_index, tf32, 1 << 12, [&](uint64_t bytes) {
                      memory.reset(std::aligned_alloc(256, bytes));
                      return memory.get();
                    }};
  return product_cuda(product, lt);
}
bool by_stand_in(const Product& product) {
  last = launch(product);
  TORCH_CHECK(last == CUBLAS_STATUS_SUCCESS || last == CUBLAS_STATUS_NOT_SUPPORTED, "status ",
              static_cast<int>(last));
  return last == CUBLAS_STATUS_SUCCESS;
}

Two forward(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
            bool gelu) {
  return linear_forward_by(by_stand_in, x, weight, bias, gelu);
}
Two grad_input(const at::Tensor& grad, const at::Tensor& weight,
               const std::optional<at::Tensor>& before) {
  return linear_grad_input_by(by_stand_in, grad, weight, before);
}
Two grad_weight(const at::Tensor& grad, const at::Tensor& x, bool transposed, bool bias) {
  return linear_grad_weight_by(by_stand_in, grad, x, transposed, bias);
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("linear_forward", forward);
  m.impl("linear_grad_input", grad_input);
  m.impl("linear_grad_weight", grad_weight);
}

class LinearOnCublasLt : public testing::Test {
 protected:
  void SetUp() override {
    c10::SetAllocator(at::kCPU, &aligned_memory);
    cublaslt_host::reset();
    tf32 = false;
    ++device_index;  // what other tests have picked is of another device
  }
  void TearDown() override { EXPECT_EQ(cublaslt_host::record().alive, 0) << "descriptors"; }
};

Tensors run(const LinearShape& shape, Memory memory = Memory::kRowMajor) {
  return run_both_ways(mlp_by_lehr(memory), linear_inputs(shape, Float::kFloat32, at::kCPU), false);
}

TEST_F(LinearOnCublasLt, AgreesWithAtenBothWaysForEveryShapeTypeAndMemory) {
  expect_linear_agrees_in_every_case(at::kCPU);
  // 9 products in 45 cases with rows, less 2 in the 18 whose width between is no multiple of 8
  EXPECT_EQ(cublaslt_host::record().multiplied, 9 * 45 - 2 * 18);
  EXPECT_EQ(cublaslt_host::record().refused, 0);
}

TEST_F(LinearOnCublasLt, LeavesBiasGeluAndTheirGradientsToTheProducts) {
  for (Memory memory : {Memory::kRowMajor, Memory::kTransposed}) {
    cublaslt_host::reset();
    ++device_index;
    run({6, 8, 16, 8}, memory);
    const auto record = cublaslt_host::record();
    EXPECT_EQ(record.multiplied, 6);
    EXPECT_EQ(record.epilogues,
              (std::set<uint32_t>{CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                  CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU_BGRAD,
                                  memory == Memory::kRowMajor ? CUBLASLT_EPILOGUE_BGRADB
                                                              : CUBLASLT_EPILOGUE_BGRADA}));
  }
}

TEST_F(LinearOnCublasLt, AsksOnceForEachProduct) {
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().asked, 6);
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().asked, 6);
  run({6, 8, 16, 8}, Memory::kTransposed);  // two forward, two backward to inputs, two to weights
  EXPECT_EQ(cublaslt_host::record().asked, 12);
  run({7, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().asked, 18);
  ++device_index;
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().asked, 24);
  EXPECT_EQ(cublaslt_host::record().refused, 0);
}

TEST_F(LinearOnCublasLt, ForgetsTheProductThatWasLeastRecentlyUsed) {
  constexpr int64_t kKept = 1024;
  const at::NoGradGuard guard;
  const at::Tensor weight = at::randn({8, 8});
  const auto asked = [&](int64_t rows) {
    const int64_t before = cublaslt_host::record().asked;
    kernels::linear(at::ones({rows, 8}), weight, std::nullopt);
    return cublaslt_host::record().asked - before;
  };
  for (int64_t rows = 1; rows <= kKept; ++rows) EXPECT_EQ(asked(rows), 1) << rows;
  EXPECT_EQ(asked(1), 0);          // all are kept, and this one is the newest now
  EXPECT_EQ(asked(kKept + 1), 1);  // the second goes
  EXPECT_EQ(asked(1), 0);
  EXPECT_EQ(asked(3), 0);
  EXPECT_EQ(asked(2), 1);
}

TEST_F(LinearOnCublasLt, AsksOnceWhenManyThreadsMeet) {
  constexpr int kThreads = 4, kShapes = 20;
  std::barrier meet(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      const at::NoGradGuard guard;
      for (int64_t rows = 1; rows <= kShapes; ++rows) {
        const Tensors in = linear_inputs({rows, 8, 16, 8}, Float::kFloat32, at::kCPU);
        meet.arrive_and_wait();
        mlp_by_lehr(Memory::kRowMajor)(in);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cublaslt_host::record().asked, 2 * kShapes);
  EXPECT_EQ(cublaslt_host::record().multiplied, 2 * kShapes * kThreads);
}

TEST_F(LinearOnCublasLt, AsksAgainForPointersThatAreLessAligned) {
  const at::NoGradGuard guard;
  const at::Tensor memory = at::randn({6 * 8 + 1}), weight = at::randn({16, 8});
  for (int64_t offset : {0, 1}) {
    const at::Tensor x = memory.slice(0, offset, offset + 6 * 8).view({6, 8});
    expect_close(kernels::linear(x, weight, std::nullopt), at::linear(x, weight), {1e-6, 1e-6},
                 "offset");
  }
  EXPECT_EQ(cublaslt_host::record().asked, 2);
  EXPECT_EQ(cublaslt_host::record().refused, 0);
}

TEST_F(LinearOnCublasLt, TakesTheFirstProposalThatRunsAndKeepsToIt) {
  cublaslt_host::refuse_proposals(2);
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().refused, 12);
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().refused, 12);
  EXPECT_EQ(cublaslt_host::record().multiplied, 12);
}

TEST_F(LinearOnCublasLt, AddsPartsUpInFloat32AndInAFixedOrderOnly) {
  run({6, 8, 16, 8});
  EXPECT_EQ(cublaslt_host::record().reduction_schemes, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(cublaslt_host::record().workspace_bytes, 1 << 11);  // what the proposal wants
}

TEST_F(LinearOnCublasLt, UsesTf32ForFloat32AndWhereItIsAllowedOnly) {
  const auto computed_in = [](Float type, bool allowed) {
    cublaslt_host::reset();
    tf32 = allowed;
    run_both_ways(mlp_by_lehr(Memory::kRowMajor), linear_inputs({6, 8, 16, 8}, type, at::kCPU),
                  false);
    return cublaslt_host::record().computed_in;
  };
  using Set = std::set<int>;
  EXPECT_EQ(computed_in(Float::kFloat32, false), Set{CUBLAS_COMPUTE_32F});
  EXPECT_EQ(computed_in(Float::kFloat32, true), Set{CUBLAS_COMPUTE_32F_FAST_TF32});
  EXPECT_EQ(computed_in(Float::kBFloat16, true), Set{CUBLAS_COMPUTE_32F});
  EXPECT_EQ(computed_in(Float::kFloat16, true), Set{CUBLAS_COMPUTE_32F});
}

TEST_F(LinearOnCublasLt, FallsBackWhereAnEpilogueIsNotThere) {
  for (uint32_t epilogue : {CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU_BGRAD,
                            CUBLASLT_EPILOGUE_BGRADB, CUBLASLT_EPILOGUE_BIAS}) {
    cublaslt_host::reset();
    ++device_index;
    cublaslt_host::refuse_epilogue(epilogue);
    for (int again = 0; again < 2; ++again)  // nor does it ask again
      expect_agreement(mlp_by_lehr(Memory::kRowMajor), mlp_by_aten(Float::kFloat32),
                       linear_inputs({6, 8, 16, 8}, Float::kFloat32, at::kCPU), "fallback",
                       mlp_tolerance(Float::kFloat32));
    EXPECT_EQ(cublaslt_host::record().multiplied, 10);
    EXPECT_EQ(cublaslt_host::record().asked, 6);
    EXPECT_EQ(cublaslt_host::record().refused, 0);
  }
}

TEST_F(LinearOnCublasLt, NeverShowsAnAuxThatCublasLtRefuses) {
  const at::NoGradGuard guard;
  const Tensors in = linear_inputs({6, 8, 12, 8}, Float::kFloat32, at::kCPU);
  mlp_by_lehr(Memory::kRowMajor)(in);           // a width of 12
  EXPECT_EQ(cublaslt_host::record().asked, 1);  // the second linear
  const at::Tensor memory = at::randn({4 * 8 + 1}), grad = at::randn({4, 8}),
                   weight = at::randn({8, 8});
  const at::Tensor before = memory.slice(0, 1).view({4, 8});  // 4 bytes off
  const auto [ours, sums] = linear_grad_input_by(by_stand_in, grad, weight, before);
  EXPECT_EQ(last, CUBLAS_STATUS_NOT_SUPPORTED);
  const auto [plain, plain_sums] = linear_grad_input_by({}, grad, weight, before);
  EXPECT_TRUE(at::equal(ours, plain) && at::equal(sums, plain_sums));
  EXPECT_EQ(cublaslt_host::record().asked, 1);
}

}  // namespace
}  // namespace lehr::kernels
