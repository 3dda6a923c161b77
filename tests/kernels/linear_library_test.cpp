// The launcher of kernels/linear on the real cuBLASLt, which needs no GPU to judge what a product
// is described by: names, sizes and types of every attribute.
#include <gtest/gtest.h>

#include "kernels/linear/linear.h"
#include "tests/kernels/floats.h"

namespace lehr::kernels {
namespace {

TEST(CublasLtLibrary, TakesEveryDescriptionAndMissesTheHandleOnly) {
  alignas(256) static char memory[1 << 14];
  for (Epilogue epilogue : {Epilogue::kNone, Epilogue::kBias, Epilogue::kBiasGelu,
                            Epilogue::kGeluSlope, Epilogue::kSumLeft, Epilogue::kSumRight})
    for (Float type : all_float_types()) {
      const Product product{memory, memory, memory, memory, memory, 16,
                            8,      32,     false,  true,   type,   epilogue};
      const CublasLt lt{.tf32 = true, .workspace_bytes = 1 << 20};
      EXPECT_EQ(cublasLtGetStatusName(product_cuda(product, lt)),
                std::string("CUBLAS_STATUS_NOT_INITIALIZED"))
          << static_cast<int>(epilogue) << " " << name_of(type);
    }
}

}  // namespace
}  // namespace lehr::kernels
