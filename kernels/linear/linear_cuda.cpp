// Products by cuBLASLt: what it calls A is our right matrix and B our left one, since it reads
// row-major memory as the transposed matrix, and (left right)^T = right^T left^T.
#include <array>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "kernels/linear/linear.h"

namespace lehr::kernels {
namespace {

constexpr int kProposals = 8;  // one is nearly always enough
constexpr uint32_t kMostAlignment = 256;
constexpr size_t kMostChoices = 1024;  // a model has dozens; batches of ever new lengths, no end

struct Destroy {
  void operator()(cublasLtMatmulDescOpaque_t* x) const { cublasLtMatmulDescDestroy(x); }
  void operator()(cublasLtMatrixLayoutOpaque_t* x) const { cublasLtMatrixLayoutDestroy(x); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* x) const { cublasLtMatmulPreferenceDestroy(x); }
};
template <class Opaque>
using Owned = std::unique_ptr<Opaque, Destroy>;

// the first status that is not success
class Status {
 public:
  void keep(cublasStatus_t status) {
    if (ok()) first_ = status;
  }
  bool ok() const { return first_ == CUBLAS_STATUS_SUCCESS; }
  cublasStatus_t first() const { return first_; }

 private:
  cublasStatus_t first_ = CUBLAS_STATUS_SUCCESS;
};

cudaDataType_t data_type(Float type) {
  return type == Float::kFloat32 ? CUDA_R_32F : type == Float::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
}

cublasLtEpilogue_t epilogue_of(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::kBiasGelu:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case Epilogue::kGeluSlope:
      return CUBLASLT_EPILOGUE_DGELU_BGRAD;
    case Epilogue::kSumLeft:
      return CUBLASLT_EPILOGUE_BGRADB;
    case Epilogue::kSumRight:
      return CUBLASLT_EPILOGUE_BGRADA;
    case Epilogue::kNone:
      break;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

bool has_aux(const Product& args) {
  return args.epilogue == Epilogue::kBiasGelu || args.epilogue == Epilogue::kGeluSlope;
}

// the power of two to which a pointer is aligned
uint32_t alignment(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const uintptr_t power = address & (~address + 1);
  return power == 0 || power > kMostAlignment ? kMostAlignment : static_cast<uint32_t>(power);
}

// everything that cuBLASLt is told, and the device
using Key = std::array<int64_t, 14>;
Key key_of(const Product& args, const CublasLt& lt) {
  return {args.rows,
          args.inner,
          args.columns,
          args.left_transposed,
          args.right_transposed,
          static_cast<int64_t>(args.type),
          static_cast<int64_t>(args.epilogue),
          lt.tf32,
          lt.device,
          alignment(args.left),
          alignment(args.right),
          alignment(args.output),
          alignment(args.bias),
          alignment(args.aux)};
}

struct Choice {
  cublasLtMatmulAlgo_t algorithm;
  uint64_t workspace_bytes;
};

// What was chosen, of which the least recently used leaves when there are too many.
class Choices {
 public:
  // Nothing: never asked, or forgotten. An empty choice: cuBLASLt cannot.
  const std::optional<Choice>* find(const Key& key) {
    const auto found = places_.find(key);
    if (found == places_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second);
    return &found->second->second;
  }
  void add(const Key& key, const std::optional<Choice>& choice) {
    recent_.emplace_front(key, choice);
    places_[key] = recent_.begin();
    if (recent_.size() <= kMostChoices) return;
    places_.erase(recent_.back().first);
    recent_.pop_back();
  }

 private:
  using Recent = std::list<std::pair<Key, std::optional<Choice>>>;
  Recent recent_;
  std::map<Key, Recent::iterator> places_;
};

class Call {
 public:
  Call(const Product& args, const CublasLt& lt) : args_(args), lt_(lt) {
    cublasLtMatmulDesc_t operation = nullptr;
    const auto compute =
        args.type == Float::kFloat32 && lt.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    status_.keep(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F));
    operation_.reset(operation);
    right_ = layout(args.right_transposed, args.inner, args.columns);
    left_ = layout(args.left_transposed, args.rows, args.inner);
    output_ = layout(false, args.rows, args.columns);
    set(CUBLASLT_MATMUL_DESC_TRANSA, args.right_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, args.left_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(args.epilogue));
    if (args.epilogue != Epilogue::kNone) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
    if (has_aux(args)) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, args.aux);
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, args.columns);
    }
  }

  // launches the product; on success the choice is filled
  cublasStatus_t pick(std::optional<Choice>* choice) {
    cublasLtMatmulPreference_t preference = nullptr;
    status_.keep(cublasLtMatmulPreferenceCreate(&preference));
    const Owned<cublasLtMatmulPreferenceOpaque_t> owner(preference);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      if (status_.ok())
        status_.keep(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, lt_.workspace_bytes);
    // of the ways to add up parts, the one in a separate step and in float32; one sequence is
    // always allowed
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(args_.right));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(args_.left));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(args_.output));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(args_.output));
    if (!status_.ok()) return status_.first();

    std::array<cublasLtMatmulHeuristicResult_t, kProposals> proposals{};
    int count = 0;
    const cublasStatus_t asked = cublasLtMatmulAlgoGetHeuristic(
        lt_.handle, operation_.get(), right_.get(), left_.get(), output_.get(), output_.get(),
        preference, kProposals, proposals.data(), &count);
    if (asked != CUBLAS_STATUS_SUCCESS) return asked;
    cublasStatus_t refusal = CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < count; ++i) {
      if (proposals[i].state != CUBLAS_STATUS_SUCCESS) continue;
      const Choice candidate{proposals[i].algo, proposals[i].workspaceSize};
      const cublasStatus_t ran = launch(candidate);
      if (ran == CUBLAS_STATUS_SUCCESS) *choice = candidate;
      // anything else is no matter of the proposal
      if (ran != CUBLAS_STATUS_NOT_SUPPORTED && ran != CUBLAS_STATUS_INVALID_VALUE) return ran;
      refusal = ran;
    }
    return refusal;
  }

  cublasStatus_t launch(const Choice& choice) {
    if (!status_.ok()) return status_.first();
    const float one = 1, zero = 0;
    void* workspace = choice.workspace_bytes == 0 ? nullptr : lt_.workspace(choice.workspace_bytes);
    return cublasLtMatmul(lt_.handle, operation_.get(), &one, args_.right, right_.get(), args_.left,
                          left_.get(), &zero, args_.output, output_.get(), args_.output,
                          output_.get(), &choice.algorithm, workspace, choice.workspace_bytes,
                          lt_.stream);
  }

 private:
  // of a row-major matrix [rows, columns], as cuBLASLt sees it
  Owned<cublasLtMatrixLayoutOpaque_t> layout(bool transposed, int64_t rows, int64_t columns) {
    const int64_t line = transposed ? rows : columns, lines = transposed ? columns : rows;
    cublasLtMatrixLayout_t made = nullptr;
    status_.keep(cublasLtMatrixLayoutCreate(&made, data_type(args_.type), line, lines, line));
    return Owned<cublasLtMatrixLayoutOpaque_t>(made);
  }
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t what, const Value& value) {
    if (status_.ok())
      status_.keep(cublasLtMatmulDescSetAttribute(operation_.get(), what, &value, sizeof value));
  }

  const Product& args_;
  const CublasLt& lt_;
  Status status_;
  Owned<cublasLtMatmulDescOpaque_t> operation_;
  Owned<cublasLtMatrixLayoutOpaque_t> right_, left_, output_;
};

}  // namespace

cublasStatus_t product_cuda(const Product& args, const CublasLt& lt) {
  if (has_aux(args) && (args.columns % 8 != 0 || alignment(args.aux) < 16))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  static std::mutex mutex;
  static Choices choices;

  Call call(args, lt);
  std::unique_lock lock(mutex);
  const Key key = key_of(args, lt);
  if (const auto* found = choices.find(key)) {
    const std::optional<Choice> choice = *found;
    lock.unlock();
    return choice ? call.launch(*choice) : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  // the lock stays, so that nobody asks twice
  std::optional<Choice> choice;
  const cublasStatus_t status = call.pick(&choice);
  if (status == CUBLAS_STATUS_SUCCESS || status == CUBLAS_STATUS_NOT_SUPPORTED)
    choices.add(key, choice);
  return status;
}

}  // namespace lehr::kernels
