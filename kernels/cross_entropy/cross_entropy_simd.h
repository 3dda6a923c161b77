// Rows of cross_entropy by vectors: the body of cross_entropy_cpu_simd.cpp, compiled once per
// instruction set (kernels/common/each_simd.h). A row stays in the caches between its passes: the
// maximum; the sum of exponentials, which float32 keeps in the place of its logits; the gradient.

// additions of floats in one run; longer rows go on in double
constexpr int64_t kRun = 2048;

struct RowSums {
  float max;
  double exponentials, logits;
};

// `with_total`: the sum of the logits too, which label smoothing wants
template <class T>
inline void maximum(const T* x, int64_t n, bool with_total, RowSums* sums) {
  const float lowest = -std::numeric_limits<float>::infinity();
  Floats first = fill(lowest), second = first;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = std::min(n, begin + kRun);
    Floats run = fill(0.0f);
    int64_t i = begin;
    if (with_total) {
      for (; i + 16 <= end; i += 16) {
        const Floats v = load(x + i);
        first = larger(first, v);
        run = run + v;
      }
    } else {
      for (; i + 32 <= end; i += 32) {
        first = larger(first, load(x + i));
        second = larger(second, load(x + i + 16));
      }
      for (; i + 16 <= end; i += 16) first = larger(first, load(x + i));
    }
    if (i < end) {
      const Lanes lanes = first_lanes(end - i);
      const Floats v = load_some(x + i, lanes, end - i);
      first = larger(first, choose(lanes, v, fill(lowest)));
      run = run + v;
    }
    if (with_total) total += static_cast<double>(sum(run));
  }
  sums->max = largest(larger(first, second));
  sums->logits = total;
}

// float32 may keep the exponentials, 16-bit types would round them
inline void keep(float* x, Floats e) { store(x, e); }
inline void keep_some(float* x, Floats e, Lanes lanes, int64_t n) { store_some(x, e, lanes, n); }
template <class T>
inline void keep(T*, Floats) {}
template <class T>
inline void keep_some(T*, Floats, Lanes, int64_t) {}

template <bool kKeep, class T>
inline double sum_of_exponentials(T* x, int64_t n, float max) {
  const Floats shift = fill(max);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = std::min(n, begin + kRun);
    Floats run = fill(0.0f);
    int64_t i = begin;
    for (; i + 16 <= end; i += 16) {
      const Floats e = exp(load(x + i) - shift);
      if (kKeep) keep(x + i, e);
      run = run + e;
    }
    if (i < end) {
      const Lanes lanes = first_lanes(end - i);
      const Floats e = exp(load_some(x + i, lanes, end - i) - shift);
      if (kKeep) keep_some(x + i, e, lanes, end - i);
      run = run + choose(lanes, e, fill(0.0f));
    }
    total += static_cast<double>(sum(run));
  }
  return total;
}

inline Floats exponential(const float*, Floats kept, Floats) { return kept; }
template <class T>
inline Floats exponential(const T*, Floats logits, Floats shift) {
  return exp(logits - shift);
}

// x = e^(x - max) * a + b
template <class T>
inline void gradient(T* x, int64_t n, float max, float a, float b) {
  const Floats shift = fill(max), factor = fill(a), constant = fill(b);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    store(x + i, multiply_add(exponential(x, load(x + i), shift), factor, constant));
  if (i < n) {
    const Lanes lanes = first_lanes(n - i);
    const Floats v = load_some(x + i, lanes, n - i);
    store_some(x + i, multiply_add(exponential(x, v, shift), factor, constant), lanes, n - i);
  }
}

template <class T>
inline void one_row(const CrossEntropy& args, int64_t r) {
  T* x = static_cast<T*>(args.logits) + r * args.stride;
  const int64_t target = args.targets[r], n = args.vocabulary;
  if (target < 0 || target >= n) {
    CrossEntropy row = args;
    row.logits = x;
    row.targets += r;
    row.losses += r;
    row.rows = 1;
    return cross_entropy_cpu(row);
  }
  const double smoothing = static_cast<double>(args.label_smoothing), z = args.z_loss;
  RowSums sums;
  maximum(x, n, smoothing > 0, &sums);
  const float of_target = widened(x[target]);
  sums.exponentials = args.gradient ? sum_of_exponentials<true>(x, n, sums.max)
                                    : sum_of_exponentials<false>(x, n, sums.max);
  const double lse = sums.max + std::log(sums.exponentials);
  double loss = (1 - smoothing) * (lse - of_target);
  if (smoothing > 0) loss += smoothing * (lse - sums.logits / static_cast<double>(n));
  if (z != 0) loss += z * lse * lse;
  args.losses[r] = static_cast<float>(loss);
  if (!args.gradient) return;

  const double a = args.scale * (z != 0 ? 1 + 2 * z * lse : 1.0) / sums.exponentials;
  const double b = -args.scale * smoothing / static_cast<double>(n);
  gradient(x, n, sums.max, static_cast<float>(a), static_cast<float>(b));
  x[target] = rounded<T>(static_cast<float>(
      std::exp(static_cast<double>(of_target - sums.max)) * a + b - args.scale * (1 - smoothing)));
  std::fill(x + n, x + args.stride, rounded<T>(0));
}

template <class T>
void rows_of(const CrossEntropy& args) {
  for (int64_t r = 0; r < args.rows; ++r) one_row<T>(args, r);
}

inline void rows(const CrossEntropy& args) {
  switch (args.type) {
    case Float::kFloat32:
      return rows_of<float>(args);
    case Float::kBFloat16:
      return rows_of<BFloat16>(args);
    case Float::kFloat16:
      return rows_of<Float16>(args);
  }
}

template <class T>
inline void add_part_of(float* sum, const T* part, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(sum + i, load(sum + i) + load(part + i));
  for (; i < n; ++i) sum[i] += widened(part[i]);
}

inline void add_part(float* sum, const void* part, Float type, int64_t n) {
  switch (type) {
    case Float::kFloat32:
      return add_part_of(sum, static_cast<const float*>(part), n);
    case Float::kBFloat16:
      return add_part_of(sum, static_cast<const BFloat16*>(part), n);
    case Float::kFloat16:
      return add_part_of(sum, static_cast<const Float16*>(part), n);
  }
}
