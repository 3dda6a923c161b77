// The oracle: attention as its definition, in double.
#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/common/rounding.h"

namespace lehr::kernels {
namespace {

// Where the rows of one head lie.
struct Head {
  int64_t first, stride;  // element of token 0, elements from token to token
  int64_t at(int64_t t) const { return first + t * stride; }
};

template <class Args>
struct Layout {
  explicit Layout(const Args& args) : a(args), packed(a.heads + 2 * a.kv_heads) {}
  Head slot(int64_t b, int64_t which) const {
    return {(b * a.time * packed + which) * a.head_size, packed * a.head_size};
  }
  Head q(int64_t b, int64_t h) const { return slot(b, h); }
  Head k(int64_t b, int64_t h) const { return slot(b, a.heads + h / (a.heads / a.kv_heads)); }
  Head v(int64_t b, int64_t h) const {
    return slot(b, a.heads + a.kv_heads + h / (a.heads / a.kv_heads));
  }
  Head out(int64_t b, int64_t h) const {
    return {(b * a.time * a.heads + h) * a.head_size, a.heads * a.head_size};
  }
  const Args& a;
  int64_t packed;
};

template <class T>
double dot(const T* x, const T* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{widened(x[i])} * double{widened(y[i])};
  return sum;
}

template <class T>
void forward(const Attention& args) {
  const Layout<Attention> lie(args);
  const T* qkv = static_cast<const T*>(args.qkv);
  T* output = static_cast<T*>(args.output);
  const int64_t n = args.head_size;
  const double scale = 1 / std::sqrt(static_cast<double>(n));
  for (int64_t b = 0; b < args.batch; ++b)
    for (int64_t h = 0; h < args.heads; ++h)
      for (int64_t t = 0; t < args.time; ++t) {
        std::vector<double> p(static_cast<size_t>(t + 1));
        double largest = -INFINITY, sum = 0;
        for (int64_t s = 0; s <= t; ++s) {
          p[s] = scale * dot(qkv + lie.q(b, h).at(t), qkv + lie.k(b, h).at(s), n);
          largest = std::max(largest, p[s]);
        }
        for (double& x : p) sum += x = std::exp(x - largest);
        args.log_sums[(b * args.heads + h) * args.time + t] =
            static_cast<float>(largest + std::log(sum));
        for (int64_t i = 0; i < n; ++i) {
          double mixed = 0;
          for (int64_t s = 0; s <= t; ++s)
            mixed += p[s] * double{widened(qkv[lie.v(b, h).at(s) + i])};
          output[lie.out(b, h).at(t) + i] = rounded<T>(static_cast<float>(mixed / sum));
        }
      }
}

template <class T>
void backward(const AttentionBackward& args) {
  const Layout<AttentionBackward> lie(args);
  const T *qkv = static_cast<const T*>(args.qkv), *grad = static_cast<const T*>(args.grad),
          *output = static_cast<const T*>(args.output);
  const int64_t n = args.head_size;
  const double scale = 1 / std::sqrt(static_cast<double>(n));
  std::vector<double> sums(static_cast<size_t>(args.batch * args.time * lie.packed * n));
  for (int64_t b = 0; b < args.batch; ++b)
    for (int64_t h = 0; h < args.heads; ++h) {
      const Head q = lie.q(b, h), k = lie.k(b, h), v = lie.v(b, h), o = lie.out(b, h);
      for (int64_t t = 0; t < args.time; ++t) {
        const double log_sum = args.log_sums[(b * args.heads + h) * args.time + t];
        const double delta = dot(grad + o.at(t), output + o.at(t), n);
        for (int64_t s = 0; s <= t; ++s) {
          const double p = std::exp(scale * dot(qkv + q.at(t), qkv + k.at(s), n) - log_sum);
          const double ds = p * (dot(grad + o.at(t), qkv + v.at(s), n) - delta) * scale;
          for (int64_t i = 0; i < n; ++i) {
            sums[q.at(t) + i] += ds * double{widened(qkv[k.at(s) + i])};
            sums[k.at(s) + i] += ds * double{widened(qkv[q.at(t) + i])};
            sums[v.at(s) + i] += p * double{widened(grad[o.at(t) + i])};
          }
        }
      }
    }
  for (size_t i = 0; i < sums.size(); ++i)
    static_cast<T*>(args.grad_qkv)[i] = rounded<T>(static_cast<float>(sums[i]));
}

}  // namespace

void attention_cpu(const Attention& args) {
  switch (args.type) {
    case Float::kFloat32:
      return forward<float>(args);
    case Float::kBFloat16:
      return forward<BFloat16>(args);
    case Float::kFloat16:
      return forward<Float16>(args);
  }
}

void attention_backward_cpu(const AttentionBackward& args) {
  switch (args.type) {
    case Float::kFloat32:
      return backward<float>(args);
    case Float::kBFloat16:
      return backward<BFloat16>(args);
    case Float::kFloat16:
      return backward<Float16>(args);
  }
}

}  // namespace lehr::kernels
