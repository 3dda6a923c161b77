// Chunks of adamw by vectors: the body of adamw_cpu_simd.cpp, compiled once per instruction set
// (kernels/common/each_simd.h). No fused multiply-add in the update: the oracle's bits.

// A kilobyte of float32: beyond the page that the hardware's prefetcher stops at.
template <class T>
inline void fetch_ahead(const T* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p + 256), _MM_HINT_T0);
}

template <class G>
inline double squares_of(const G* gradient, int64_t n) {
  // four places at once, which memory serves faster than one, into two sets of sums, so that
  // additions need not wait for each other
  Squares first = no_squares(), second = no_squares();
  const int64_t quarter = n / 64 * 16;
  for (int64_t i = 0; i < quarter; i += 16) {
    for (int part = 0; part < 4; ++part) {
      const G* place = gradient + part * quarter + i;
      fetch_ahead(place);
      add_squares(part % 2 ? &second : &first, load(place));
    }
  }
  int64_t i = 4 * quarter;
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
  // copied out of the table, which the compiler would have to read again after every store
  const G* const gradient = static_cast<const G*>(tensor.gradient);
  float* const parameter = tensor.parameter;
  float* const exp_avg = tensor.exp_avg;
  float* const exp_avg_sq = tensor.exp_avg_sq;
  float* const average = tensor.average;
  void* const copy = tensor.copy;
  const Float copy_type = tensor.copy_type;
  const Floats scale = fill(factor), decay = fill(tensor.decay), step = fill(tensor.step_size),
               one_minus_beta1 = fill(args.one_minus_beta1), beta2 = fill(args.beta2),
               one_minus_beta2 = fill(args.one_minus_beta2), root = fill(args.root),
               eps = fill(args.eps), one_minus_ema = fill(args.one_minus_ema);
  int64_t i = begin;
  for (; i + 16 <= end; i += 16) {
    fetch_ahead(gradient + i);
    fetch_ahead(parameter + i);
    fetch_ahead(exp_avg + i);
    fetch_ahead(exp_avg_sq + i);
    const Floats g = load(gradient + i) * scale;
    Floats p = load(parameter + i) * decay;
    Floats m = load(exp_avg + i), v = load(exp_avg_sq + i);
    m = m + (g - m) * one_minus_beta1;
    v = v * beta2 + g * g * one_minus_beta2;
    p = p - m * step / (square_root(v) / root + eps);
    store(parameter + i, p);
    store(exp_avg + i, m);
    store(exp_avg_sq + i, v);
    if (copy) {
      if (copy_type == Float::kBFloat16)
        store(static_cast<BFloat16*>(copy) + i, p);
      else if (copy_type == Float::kFloat16)
        store(static_cast<Float16*>(copy) + i, p);
      else
        store(static_cast<float*>(copy) + i, p);
    }
    if (average) {
      fetch_ahead(average + i);
      const Floats old = load(average + i);
      store(average + i, old + (p - old) * one_minus_ema);
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
