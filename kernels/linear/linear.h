// A matrix product whose epilogue does what layers would otherwise read and write the result again
// for: the bias, GELU, its slope, the gradient of a bias. On CUDA it is cuBLASLt's; the CPU has
// ATen's products, and so has a GPU for what cuBLASLt refuses.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cublasLt.h>

#include <functional>
#endif

namespace lehr::kernels {

enum class Epilogue : uint8_t {
  kNone,
  kBias,       // a row `bias` is added to every row
  kBiasGelu,   // the same, kept in `aux`, then GELU by its tanh form
  kGeluSlope,  // times the slope of GELU at `aux`; `bias` becomes the sums of the columns
  kSumLeft,    // `bias` [rows] becomes the sums of left's rows; left is stored transposed
  kSumRight,   // `bias` [columns] becomes the sums of right's columns; right is not
};

// output = epilogue(left right), all of `type`, summed in float32. Matrices are packed and
// row-major, or packed and stored transposed. Work: 2 rows inner columns operations. Bytes moved,
// at least: both matrices, the output, aux and bias once; that the sums cost no second reading is
// up to the algorithm that cuBLASLt picks. The output overlaps nothing.
struct Product {
  const void *left, *right;  // [rows, inner] and [inner, columns]
  void* output;              // [rows, columns]
  void* bias;                // read by kBias, kBiasGelu; written by the next three; else nullptr
  void* aux;                 // [rows, columns]: written by kBiasGelu, read by kGeluSlope
  int64_t rows, inner, columns;  // 1 or more
  bool left_transposed, right_transposed;
  Float type;
  Epilogue epilogue;
};

#ifdef LEHR_CUDA
// Where products run.
struct CublasLt {
  cublasLtHandle_t handle;
  cudaStream_t stream;
  int device;  // the current one
  bool tf32;   // float32 may be multiplied in TF32
  uint64_t workspace_bytes;
  std::function<void*(uint64_t bytes)> workspace;  // 256-byte aligned, until the stream is past it
};
// Asynchronous. An algorithm is picked once for every shape, type, transposition, epilogue,
// alignment of the pointers and device: the first of cuBLASLt's proposals that it launches, among
// those that sum in one sequence or through float32 in the workspace, so that the bits depend on
// nothing but the arguments. The last 1,024 that were used are kept; any thread may call.
// CUBLAS_STATUS_NOT_SUPPORTED: nothing was done, take the plain ops. So where `aux` is not aligned
// to 16 bytes or its rows are no multiple of 8, which cuBLASLt wants.
[[nodiscard]] cublasStatus_t product_cuda(const Product& args, const CublasLt& lt);
#endif

}  // namespace lehr::kernels
