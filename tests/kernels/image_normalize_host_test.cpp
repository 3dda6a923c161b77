// image_normalize.cu itself, compiled for the host, against the oracle: same bits under every
// thread order, in the asan and the race build.
#include "kernels/image_normalize/image_normalize.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/image_normalize_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;

// output bytes of the oracle
std::vector<uint8_t> expected(const ImageShape& shape, Float type,
                              const std::vector<uint8_t>& pixels, const std::vector<float>& scale,
                              const std::vector<float>& shift) {
  std::vector<uint8_t> output(shape.elements() * bytes_of(type));
  image_normalize_cpu({pixels.data(), output.data(), scale.data(), shift.data(),
                       shape.n * shape.h * shape.w, static_cast<int32_t>(shape.c), type});
  return output;
}

void expect_agreement(const ImageShape& shape, Float type, bool hard, size_t input_skew,
                      size_t output_skew) {
  const auto pixels = image_normalize_pixels(shape.elements());
  std::vector<float> scale, shift;
  image_normalize_constants(shape.c, hard, &scale, &shift);
  const auto output = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> in(pixels, input_skew);
    Buffer<uint8_t> out(pixels.size() * bytes_of(type), output_skew);
    Buffer<float> scales(scale), shifts(shift);
    EXPECT_EQ(
        image_normalize_cuda({in.data(), out.data(), scales.data(), shifts.data(),
                              shape.n * shape.h * shape.w, static_cast<int32_t>(shape.c), type},
                             nullptr),
        cudaSuccess);
    return out.values();
  });
  EXPECT_EQ(output, expected(shape, type, pixels, scale, shift))
      << shape.name() << " type " << static_cast<int>(type) << " skews " << input_skew << " "
      << output_skew;
}

TEST(ImageNormalizeHost, GivesTheOraclesBitsForEveryShapeAndType) {
  for (const ImageShape& shape : image_normalize_shapes())
    for (Float type : float_types())
      for (bool hard : {false, true}) expect_agreement(shape, type, hard, 0, 0);
}

TEST(ImageNormalizeHost, GivesTheOraclesBitsFromSkewedBuffers) {
  for (Float type : float_types())
    for (size_t input_skew : {1, 4, 8})
      for (size_t output_skew : {0, 1, 2, 4})
        expect_agreement({2, 5, 9, 3}, type, false, input_skew, output_skew * bytes_of(type));
}

TEST(ImageNormalizeHost, DoesNothingForNoPixels) {
  EXPECT_EQ(
      image_normalize_cuda({nullptr, nullptr, nullptr, nullptr, 0, 3, Float::kFloat32}, nullptr),
      cudaSuccess);
}

}  // namespace
}  // namespace lehr::kernels
