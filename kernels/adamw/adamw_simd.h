// Chunks of adamw by vectors: the body of adamw_cpu_simd.cpp, compiled once per instruction set
// (kernels/common/each_simd.h). No fused multiply-add in the update: the oracle's bits.

template <class G>
inline double squares_of(const G* gradient, int64_t n) {
  // two sets of sums, so that additions need not wait for each other
  Squares first = no_squares(), second = no_squares();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    add_squares(&first, load(gradient + i));
    add_squares(&second, load(gradient + i + 16));
  }
  for (; i < n; i += 16) {
    const int64_t left = std::min<int64_t>(16, n - i);
    add_squares(&first, load_some(gradient + i, first_lanes(left), left));
  }
  return sum(first) + sum(second);
}

inline void squares(const AdamW& args, int64_t begin, int64_t end) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const AdamWTensor& tensor = args.tensors[adamw_tensor_of(args, chunk)];
    const int64_t first = (chunk - tensor.first_chunk) * kAdamWChunk;
    const int64_t n = std::min(tensor.count - first, kAdamWChunk);
    switch (tensor.gradient_type) {
      case Float::kFloat32:
        args.partials[chunk] = squares_of(static_cast<const float*>(tensor.gradient) + first, n);
        break;
      case Float::kBFloat16:
        args.partials[chunk] = squares_of(static_cast<const BFloat16*>(tensor.gradient) + first, n);
        break;
      case Float::kFloat16:
        args.partials[chunk] = squares_of(static_cast<const Float16*>(tensor.gradient) + first, n);
        break;
    }
  }
}

template <class G>
void update_elements(const AdamW& args, const AdamWTensor& tensor, float factor, int64_t begin,
                     int64_t end) {
  const G* gradient = static_cast<const G*>(tensor.gradient);
  const Floats scale = fill(factor), decay = fill(tensor.decay), step = fill(tensor.step_size),
               one_minus_beta1 = fill(args.one_minus_beta1), beta2 = fill(args.beta2),
               one_minus_beta2 = fill(args.one_minus_beta2), root = fill(args.root),
               eps = fill(args.eps), one_minus_ema = fill(args.one_minus_ema);
  int64_t i = begin;
  for (; i + 16 <= end; i += 16) {
    const Floats g = load(gradient + i) * scale;
    Floats p = load(tensor.parameter + i) * decay;
    Floats m = load(tensor.exp_avg + i), v = load(tensor.exp_avg_sq + i);
    m = m + (g - m) * one_minus_beta1;
    v = v * beta2 + g * g * one_minus_beta2;
    p = p - m * step / (square_root(v) / root + eps);
    store(tensor.parameter + i, p);
    store(tensor.exp_avg + i, m);
    store(tensor.exp_avg_sq + i, v);
    if (tensor.copy) {
      if (tensor.copy_type == Float::kBFloat16)
        store(static_cast<BFloat16*>(tensor.copy) + i, p);
      else if (tensor.copy_type == Float::kFloat16)
        store(static_cast<Float16*>(tensor.copy) + i, p);
      else
        store(static_cast<float*>(tensor.copy) + i, p);
    }
    if (tensor.average) {
      const Floats average = load(tensor.average + i);
      store(tensor.average + i, average + (p - average) * one_minus_ema);
    }
  }
  adamw_elements_cpu(args, tensor, factor, i, end);
}

inline void update(const AdamW& args, float factor, int64_t begin, int64_t end) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const AdamWTensor& tensor = args.tensors[adamw_tensor_of(args, chunk)];
    const int64_t first = (chunk - tensor.first_chunk) * kAdamWChunk;
    const int64_t last = std::min(tensor.count, first + kAdamWChunk);
    switch (tensor.gradient_type) {
      case Float::kFloat32:
        update_elements<float>(args, tensor, factor, first, last);
        break;
      case Float::kBFloat16:
        update_elements<BFloat16>(args, tensor, factor, first, last);
        break;
      case Float::kFloat16:
        update_elements<Float16>(args, tensor, factor, first, last);
        break;
    }
  }
}
