#include "tests/cuda_host/cublaslt.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/common/rounding.h"

namespace cublaslt_host {
namespace {

using lehr::kernels::BFloat16;
using lehr::kernels::Float16;

struct Operation {
  cublasComputeType_t compute;
  int32_t transposed[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr, *aux = nullptr;
  int64_t aux_line = 0;
};
struct Layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t line;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
// what fits into the opaque words of an algorithm
struct Algorithm {
  uint64_t product;  // for which it was proposed
  uint32_t alignment[4], bias_alignment, aux_alignment;
  uint64_t workspace;
  bool runs;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

std::mutex mutex;
Record seen;
int unwilling = 0;
uint32_t missing = 0;

template <class Value>
cublasStatus_t store(Value* to, const void* from, size_t bytes) {
  if (from == nullptr || bytes != sizeof(Value)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Real, class Opaque>
const Real& real(const Opaque* opaque) {
  return *reinterpret_cast<const Real*>(opaque);
}
template <class Real, class Opaque>
cublasStatus_t create(Opaque** to, Real value) {
  const std::lock_guard lock(mutex);
  ++seen.alive;
  *to = reinterpret_cast<Opaque*>(new Real(value));
  return CUBLAS_STATUS_SUCCESS;
}
template <class Real, class Opaque>
cublasStatus_t destroy(Opaque* opaque) {
  const std::lock_guard lock(mutex);
  --seen.alive;
  delete reinterpret_cast<Real*>(opaque);
  return CUBLAS_STATUS_SUCCESS;
}

double read(const void* memory, cudaDataType_t type, int64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(memory)[i];
  if (type == CUDA_R_16BF) return lehr::kernels::widened(static_cast<const BFloat16*>(memory)[i]);
  return lehr::kernels::widened(static_cast<const Float16*>(memory)[i]);
}
void write(void* memory, cudaDataType_t type, int64_t i, double value) {
  const float f = static_cast<float>(value);
  if (type == CUDA_R_32F)
    static_cast<float*>(memory)[i] = f;
  else if (type == CUDA_R_16BF)
    static_cast<BFloat16*>(memory)[i] = lehr::kernels::rounded<BFloat16>(f);
  else
    static_cast<Float16*>(memory)[i] = lehr::kernels::rounded<Float16>(f);
}

uint32_t alignment(const void* pointer) {
  uint32_t bytes = 1;
  while (bytes < 256 && reinterpret_cast<uintptr_t>(pointer) % (2 * bytes) == 0) bytes *= 2;
  return bytes;
}

bool has(const Operation& op, uint32_t bits) { return (op.epilogue & bits) == bits; }
bool has_bias_pointer(const Operation& op) {
  return has(op, CUBLASLT_EPILOGUE_BIAS) || has(op, 16) || has(op, CUBLASLT_EPILOGUE_BGRADA) ||
         has(op, CUBLASLT_EPILOGUE_BGRADB);
}

struct Sizes {
  int64_t m, n, k;
};
// the sizes of a valid product, or why it is none
cublasStatus_t check(const Operation& op, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d, Sizes* sizes) {
  const auto shape = [](const Layout& x, bool transposed) {
    return transposed ? std::pair{x.columns, x.rows} : std::pair{x.rows, x.columns};
  };
  const auto [m, k] = shape(a, op.transposed[0] == CUBLAS_OP_T);
  const auto [k_b, n] = shape(b, op.transposed[1] == CUBLAS_OP_T);
  if (k != k_b || d.rows != m || d.columns != n || c.rows != m || c.columns != n)
    return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout* x : {&a, &b, &c, &d})
    if (x->line < static_cast<int64_t>(x->rows) || x->type != d.type)
      return CUBLAS_STATUS_INVALID_VALUE;
  // a GPU's library has these two for operands stored so, and for no others
  if ((has(op, CUBLASLT_EPILOGUE_BGRADA) && op.transposed[0] != CUBLAS_OP_N) ||
      (has(op, CUBLASLT_EPILOGUE_BGRADB) && op.transposed[1] != CUBLAS_OP_T))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (op.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && d.type != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (has_bias_pointer(op) && op.bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (has(op, 128) && (op.aux == nullptr || op.aux_line % 8 != 0 ||
                       op.aux_line < static_cast<int64_t>(m) || alignment(op.aux) < 16))
    return CUBLAS_STATUS_INVALID_VALUE;
  *sizes = {static_cast<int64_t>(m), static_cast<int64_t>(n), static_cast<int64_t>(k)};
  return CUBLAS_STATUS_SUCCESS;
}

uint64_t identity(const Operation& op, const Layout& a, const Layout& b, const Layout& d) {
  uint64_t hash = 0;
  for (uint64_t part : {uint64_t(op.compute), uint64_t(op.transposed[0]),
                        uint64_t(op.transposed[1]), uint64_t{op.epilogue}, uint64_t(op.aux_line),
                        uint64_t(d.type), a.rows, a.columns, b.rows, b.columns})
    hash = (hash ^ part) * 0x9e3779b97f4a7c15u + (hash >> 29);
  return hash;
}

void multiply(const Operation& op, Sizes sizes, const void* a, const Layout& la, const void* b,
              const Layout& lb, void* d, const Layout& ld) {
  const auto at_a = [&](int64_t i, int64_t l) {
    return read(a, la.type, op.transposed[0] == CUBLAS_OP_T ? l + i * la.line : i + l * la.line);
  };
  const auto at_b = [&](int64_t l, int64_t j) {
    return read(b, lb.type, op.transposed[1] == CUBLAS_OP_T ? j + l * lb.line : l + j * lb.line);
  };
  std::vector<double> row_sums(sizes.m);
  for (int64_t j = 0; j < sizes.n; ++j)
    for (int64_t i = 0; i < sizes.m; ++i) {
      double x = 0;
      for (int64_t l = 0; l < sizes.k; ++l) x += at_a(i, l) * at_b(l, j);
      if (has(op, CUBLASLT_EPILOGUE_BIAS)) x += read(op.bias, ld.type, i);
      const int64_t at_aux = i + j * op.aux_line;
      const double in = has(op, CUBLASLT_EPILOGUE_DGELU) ? read(op.aux, ld.type, at_aux) : x;
      const double c = std::sqrt(2 / M_PI), t = std::tanh(c * (in + 0.044715 * in * in * in));
      if (has(op, CUBLASLT_EPILOGUE_GELU_AUX)) write(op.aux, ld.type, at_aux, x);
      if (has(op, CUBLASLT_EPILOGUE_GELU)) x *= (1 + t) / 2;
      if (has(op, CUBLASLT_EPILOGUE_DGELU))
        x *= (1 + t) / 2 + in / 2 * (1 - t * t) * c * (1 + 3 * 0.044715 * in * in);
      row_sums[i] += x;
      write(d, ld.type, i + j * ld.line, x);
    }
  const auto sum = [&](int64_t length, const std::function<double(int64_t, int64_t)>& at) {
    for (int64_t i = 0; i < length; ++i) {
      double total = 0;
      for (int64_t l = 0; l < sizes.k; ++l) total += at(i, l);
      write(op.bias, ld.type, i, total);
    }
  };
  if (has(op, 16))
    for (int64_t i = 0; i < sizes.m; ++i) write(op.bias, ld.type, i, row_sums[i]);
  if (has(op, CUBLASLT_EPILOGUE_BGRADA)) sum(sizes.m, at_a);
  if (has(op, CUBLASLT_EPILOGUE_BGRADB))
    sum(sizes.n, [&](int64_t j, int64_t l) { return at_b(l, j); });
}

}  // namespace

Record record() {
  const std::lock_guard lock(mutex);
  return seen;
}
void reset() {
  const std::lock_guard lock(mutex);
  seen = {.alive = seen.alive};
  unwilling = 0;
  missing = 0;
}
void refuse_proposals(int first) { unwilling = first; }
void refuse_epilogue(uint32_t epilogue) { missing = epilogue; }

}  // namespace cublaslt_host

using namespace cublaslt_host;

extern "C" {

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* to, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return create(to, Operation{.compute = compute});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op) { return destroy<Operation>(op); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void* value, size_t bytes) {
  auto& op = *reinterpret_cast<Operation*>(desc);
  switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return store(&op.transposed[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return store(&op.transposed[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return store(&op.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return store(&op.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return store(&op.aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return store(&op.aux_line, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* to, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t line) {
  return create(to, Layout{type, rows, columns, line});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy<Layout>(layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* to) {
  return create(to, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy<Preference>(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t to,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void* value, size_t bytes) {
  auto& preference = *reinterpret_cast<Preference*>(to);
  switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return store(&preference.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return store(&preference.schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return store(&preference.alignment[what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
                   bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int most,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  const auto& op = real<Operation>(desc);
  const auto& preference = real<Preference>(wanted);
  std::this_thread::sleep_for(std::chrono::microseconds(200));  // so that threads can meet here
  const std::lock_guard lock(mutex);
  ++seen.asked;
  seen.reduction_schemes = preference.schemes;
  Sizes sizes{};
  const auto &la = real<Layout>(a), &lb = real<Layout>(b), &ld = real<Layout>(d);
  const cublasStatus_t valid = check(op, la, lb, real<Layout>(c), ld, &sizes);
  if (valid != CUBLAS_STATUS_SUCCESS) return valid;
  if (op.epilogue == missing) return CUBLAS_STATUS_NOT_SUPPORTED;
  *count = std::min(most, unwilling + 1);
  for (int i = 0; i < *count; ++i) {
    Algorithm algorithm{identity(op, la, lb, ld), {},
                        alignment(op.bias),       alignment(op.aux),
                        preference.workspace / 2, i >= unwilling};
    std::memcpy(algorithm.alignment, preference.alignment, sizeof algorithm.alignment);
    std::memcpy(&results[i].algo, &algorithm, sizeof algorithm);
    results[i].workspaceSize = algorithm.workspace;
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* chosen,
                              void* workspace, size_t workspace_bytes, cudaStream_t) {
  const auto& op = real<Operation>(desc);
  const auto &la = real<Layout>(a_layout), &lb = real<Layout>(b_layout),
             &ld = real<Layout>(d_layout);
  Algorithm algorithm{};
  std::memcpy(&algorithm, chosen, sizeof algorithm);
  Sizes sizes{};
  cublasStatus_t status = check(op, la, lb, real<Layout>(c_layout), ld, &sizes);
  const void* const matrices[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (alignment(matrices[i]) < algorithm.alignment[i]) status = CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.product != identity(op, la, lb, ld) ||
      alignment(op.bias) < algorithm.bias_alignment ||
      alignment(op.aux) < algorithm.aux_alignment || workspace_bytes < algorithm.workspace ||
      (algorithm.workspace > 0 && workspace == nullptr) || *static_cast<const float*>(alpha) != 1 ||
      *static_cast<const float*>(beta) != 0)
    status = CUBLAS_STATUS_INVALID_VALUE;
  if (!algorithm.runs) status = CUBLAS_STATUS_NOT_SUPPORTED;
  {
    const std::lock_guard lock(mutex);
    ++(status == CUBLAS_STATUS_SUCCESS ? seen.multiplied : seen.refused);
    seen.workspace_bytes = std::max<uint64_t>(seen.workspace_bytes, workspace_bytes);
    seen.epilogues.insert(op.epilogue);
    seen.computed_in.insert(op.compute);
  }
  if (status == CUBLAS_STATUS_SUCCESS) multiply(op, sizes, a, la, b, lb, d, ld);
  return status;
}

}  // extern "C"
