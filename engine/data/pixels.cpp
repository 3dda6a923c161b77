// Compiled with -O3 -ffp-contract=off (CMakeLists.txt): a fused multiply-add would round once where
// ATen rounds twice.
#include "engine/data/pixels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lehr::data {
namespace {

// one source, compiled for the machine's vector width; results do not depend on which one runs
#define INLINE inline __attribute__((always_inline))

INLINE void grey_body(const uint8_t* in, int64_t n, float scale, float shift, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]) * scale + shift;
}

INLINE void row_body(const uint8_t* in, int64_t n, const float* scale, const float* shift,
                     float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]) * scale[i] + shift[i];
}

INLINE void moments_body(const uint8_t* in, int64_t n, uint32_t* sum, uint32_t* squares,
                         uint8_t* low, uint8_t* high) {
  uint32_t s = 0, q = 0;
  uint8_t l = 255, h = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t v = in[i];
    s += v;
    q += v * v;
    l = std::min(l, in[i]);
    h = std::max(h, in[i]);
  }
  *sum = s, *squares = q, *low = l, *high = h;
}

struct Loops {
  void (*grey)(const uint8_t*, int64_t, float, float, float*);
  void (*row)(const uint8_t*, int64_t, const float*, const float*, float*);
  void (*moments)(const uint8_t*, int64_t, uint32_t*, uint32_t*, uint8_t*, uint8_t*);
};

#define LOOPS(NAME, TARGET)                                                                      \
  TARGET void grey_##NAME(const uint8_t* in, int64_t n, float scale, float shift, float* out) {  \
    grey_body(in, n, scale, shift, out);                                                         \
  }                                                                                              \
  TARGET void row_##NAME(const uint8_t* in, int64_t n, const float* scale, const float* shift,   \
                         float* out) {                                                           \
    row_body(in, n, scale, shift, out);                                                          \
  }                                                                                              \
  TARGET void moments_##NAME(const uint8_t* in, int64_t n, uint32_t* s, uint32_t* q, uint8_t* l, \
                             uint8_t* h) {                                                       \
    moments_body(in, n, s, q, l, h);                                                             \
  }                                                                                              \
  constexpr Loops loops_##NAME{grey_##NAME, row_##NAME, moments_##NAME};

LOOPS(plain, )
#if defined(__x86_64__)
LOOPS(avx2, __attribute__((target("avx2"))))
LOOPS(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512"))))
#endif

const Loops& loops() {
  static const Loops chosen = [] {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
      return loops_avx512;
    if (__builtin_cpu_supports("avx2")) return loops_avx2;
#endif
    return loops_plain;
  }();
  return chosen;
}

// eight bytes at a time
void mirror(const uint8_t* in, int64_t n, uint8_t* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t v;
    std::memcpy(&v, in + n - 8 - i, 8);
    v = __builtin_bswap64(v);
    std::memcpy(out + i, &v, 8);
  }
  for (; i < n; ++i) out[i] = in[n - 1 - i];
}

}  // namespace

Normalizer::Normalizer(int height, int width, int channels, const std::vector<float>& scale,
                       const std::vector<float>& shift)
    : height_(height), width_(width), channels_(channels) {
  for (int x = 0; x < width; ++x) {
    scale_.insert(scale_.end(), scale.begin(), scale.end());
    shift_.insert(shift_.end(), shift.begin(), shift.end());
  }
}

void Normalizer::whole(const uint8_t* image, float* out) const {
  if (channels_ == 1) {
    loops().grey(image, int64_t{height_} * width_, scale_[0], shift_[0], out);
    return;
  }
  const int64_t row = int64_t{width_} * channels_;
  for (int y = 0; y < height_; ++y)
    loops().row(image + y * row, row, scale_.data(), shift_.data(), out + y * row);
}

void Normalizer::window(const uint8_t* image, const Window& w, uint8_t* scratch, float* out) const {
  const int64_t row = int64_t{width_} * channels_;
  if (w.dy || w.dx || w.flip) {
    // columns [from, to) and rows [first, last) of the result lie inside the image
    const int from = std::clamp(-w.dx, 0, width_), to = std::clamp(width_ - w.dx, from, width_);
    const int first = std::clamp(-w.dy, 0, height_),
              last = std::clamp(height_ - w.dy, first, height_);
    const int64_t bytes = int64_t{to - from} * channels_;
    if (bytes < row || last - first < height_) std::memset(scratch, 0, row * height_);
    const int64_t start = int64_t{w.flip ? width_ - to : from} * channels_;
    for (int y = first; y < last && bytes > 0; ++y) {
      const uint8_t* source = image + (y + w.dy) * row + int64_t{from + w.dx} * channels_;
      uint8_t* line = scratch + y * row + start;
      if (!w.flip) {
        std::memcpy(line, source, bytes);
      } else if (channels_ == 1) {
        mirror(source, bytes, line);
      } else {
        for (int64_t x = 0; x < bytes; x += channels_)
          std::copy_n(source + bytes - channels_ - x, channels_, line + x);
      }
    }
    image = scratch;
  }
  whole(image, out);
  for (int y = w.top; y < w.bottom; ++y)
    std::fill(out + y * row + int64_t{w.left} * channels_,
              out + y * row + int64_t{w.right} * channels_, 0.0f);
}

double Moments::mean() const { return count ? static_cast<double>(sum) / count : 0; }

double Moments::std() const {
  if (!count) return 0;
  // count * squares - sum^2 in 128 bits: no cancellation
  const auto n = static_cast<unsigned __int128>(count);
  return std::sqrt(static_cast<double>(n * squares - static_cast<unsigned __int128>(sum) * sum)) /
         count;
}

void accumulate(const uint8_t* image, int64_t pixels, std::vector<Moments>& moments) {
  const int64_t channels = static_cast<int64_t>(moments.size());
  // 32-bit sums hold 2^16 squares of a byte
  constexpr int64_t kRun = 65536;
  std::vector<uint8_t> plane;
  if (channels > 1) plane.resize(std::min(pixels, kRun));
  for (int64_t begin = 0; begin < pixels; begin += kRun) {
    const int64_t n = std::min(kRun, pixels - begin);
    for (int64_t c = 0; c < channels; ++c) {
      const uint8_t* run = image + begin;
      if (channels > 1) {
        for (int64_t i = 0; i < n; ++i) plane[i] = image[(begin + i) * channels + c];
        run = plane.data();
      }
      uint32_t sum, squares;
      uint8_t low, high;
      loops().moments(run, n, &sum, &squares, &low, &high);
      Moments& m = moments[c];
      m.count += n, m.sum += sum, m.squares += squares;
      m.minimum = std::min<int>(m.minimum, low), m.maximum = std::max<int>(m.maximum, high);
    }
  }
}

}  // namespace lehr::data
