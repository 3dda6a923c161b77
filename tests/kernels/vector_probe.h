// What vector_test.cpp asks of kernels/common/vector_exp.h, once per instruction set.

inline void exponentials(const float* in, float* out) { store(out, exp(load(in))); }

template <class T>
void widen_all(const T* in, float* out) {
  store(out, load(in));
}
template <class T>
void round_all(const float* in, T* out) {
  store(out, load(in));
}

template <class T>
void copy_some(const T* in, T* out, int64_t n) {
  const Lanes lanes = first_lanes(n);
  store_some(out, load_some(in, lanes, n), lanes, n);
}

inline float sum_all(const float* in) { return sum(load(in)); }
inline float largest_of(const float* in) { return largest(load(in)); }
