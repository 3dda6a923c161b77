// embedding by vectors: the body of embedding_cpu_simd.cpp, compiled once per instruction set
// (kernels/common/each_simd.h).

template <class T>
void look_up(const Embedding& args, int64_t begin, int64_t end) {
  const int64_t width = args.width;
  for (int64_t i = begin; i < end; ++i) {
    T* output = static_cast<T*>(args.output) + i * width;
    const int64_t id = args.ids[i];
    if (id < 0 || id >= args.vocabulary) {
      embedding_cpu(args, i, i + 1);
      continue;
    }
    const T* row = static_cast<const T*>(args.weight) + id * width;
    if (!args.positions) {
      std::copy_n(row, width, output);
      continue;
    }
    const T* position = static_cast<const T*>(args.positions) + i % args.length * width;
    int64_t j = 0;
    for (; j + 16 <= width; j += 16) store(output + j, load(row + j) + load(position + j));
    for (; j < width; ++j) output[j] = rounded<T>(widened(row[j]) + widened(position[j]));
  }
}

// Where the rows of one sum lie: the k-th of `count` at gradient + token(k) * width.
struct Members {
  const int64_t* order;  // by id; nullptr: every `step`-th token from `first`
  int64_t first, step, count;
};
inline int64_t token(const Members& members, int64_t k) {
  return members.order ? members.order[k] : members.first + k * members.step;
}

// kVectors x 16 columns at once stay in registers over all rows
template <int kVectors, class T>
inline void add_columns(const T* gradient, int64_t width, const Members& members, T* result) {
  Floats sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = fill(0.0f);
  for (int64_t k = 0; k < members.count; ++k) {
    const T* row = gradient + token(members, k) * width;
    for (int v = 0; v < kVectors; ++v) sums[v] = sums[v] + load(row + 16 * v);
  }
  for (int v = 0; v < kVectors; ++v) store(result + 16 * v, sums[v]);
}

template <class T>
inline void add_rows(const T* gradient, int64_t width, const Members& members, T* result) {
  int64_t j = 0;
  for (; j + 64 <= width; j += 64) add_columns<4>(gradient + j, width, members, result + j);
  for (; j + 16 <= width; j += 16) add_columns<1>(gradient + j, width, members, result + j);
  for (; j < width; ++j) {
    float sum = 0;
    for (int64_t k = 0; k < members.count; ++k)
      sum += widened(gradient[token(members, k) * width + j]);
    result[j] = rounded<T>(sum);
  }
}

template <class T>
void add_up(const EmbeddingGradient& args, int64_t begin, int64_t end) {
  const T* gradient = static_cast<const T*>(args.gradient);
  T* result = static_cast<T*>(args.result);
  if (!args.sorted_ids) {
    const int64_t sequences = args.tokens / args.length;
    for (int64_t t = (begin + sequences - 1) / sequences; t * sequences < end; ++t)
      add_rows(gradient, args.width, {nullptr, t, args.length, sequences}, result + t * args.width);
    return;
  }
  for (int64_t i = begin; i < end;) {
    const int64_t id = args.sorted_ids[i];
    int64_t after = i + 1;
    while (after < args.tokens && args.sorted_ids[after] == id) ++after;
    if (id >= 0 && id < args.rows && (i == 0 || args.sorted_ids[i - 1] != id))
      add_rows(gradient, args.width, {args.order + i, 0, 0, after - i}, result + id * args.width);
    i = after;
  }
}

inline void look_up_rows(const Embedding& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case Float::kFloat32:
      return look_up<float>(args, begin, end);
    case Float::kBFloat16:
      return look_up<BFloat16>(args, begin, end);
    case Float::kFloat16:
      return look_up<Float16>(args, begin, end);
  }
}

inline void add_up_rows(const EmbeddingGradient& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case Float::kFloat32:
      return add_up<float>(args, begin, end);
    case Float::kBFloat16:
      return add_up<BFloat16>(args, begin, end);
    case Float::kFloat16:
      return add_up<Float16>(args, begin, end);
  }
}
