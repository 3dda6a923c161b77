// The op lehr::image_normalize: ATen defines, CPU and CUDA give its bits.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "kernels/image_normalize/image_normalize_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/image_normalize_cases.h"

namespace lehr::kernels {
namespace {

struct Inputs {
  at::Tensor images, scale, shift;
};

at::Tensor tensor_of(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }

Inputs make_inputs(const ImageShape& shape, bool hard, at::Device device) {
  std::vector<uint8_t> pixels = image_normalize_pixels(shape.elements());
  std::vector<float> scale, shift;
  image_normalize_constants(shape.c, hard, &scale, &shift);
  at::Tensor images = at::empty({shape.n, shape.h, shape.w, shape.c}, at::kByte);
  std::copy(pixels.begin(), pixels.end(), images.mutable_data_ptr<uint8_t>());
  return {images.to(device), tensor_of(scale).to(device), tensor_of(shift).to(device)};
}

// the definition, in ATen's ops
at::Tensor by_aten(const Inputs& in, at::ScalarType type) {
  const auto per_channel = [](const at::Tensor& t) { return t.view({1, -1, 1, 1}); };
  return in.images.permute({0, 3, 1, 2})
      .to(at::kFloat)
      .mul(per_channel(in.scale))
      .add(per_channel(in.shift))
      .to(type);
}

const std::vector<at::ScalarType> kTypes = {at::kFloat, at::kBFloat16, at::kHalf};

class ImageNormalizeOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, ImageNormalizeOp, testing::Values(at::kCPU, at::kCUDA),
                         device_name);

TEST_P(ImageNormalizeOp, GivesAtensBitsForEveryShapeAndType) {
  for (const ImageShape& shape : image_normalize_shapes()) {
    for (at::ScalarType type : kTypes) {
      for (bool hard : {false, true}) {
        const Inputs in = make_inputs(shape, hard, device());
        const at::Tensor out = image_normalize(in.images, in.scale, in.shift, type);
        EXPECT_EQ(out.scalar_type(), type);
        EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast));
        EXPECT_TRUE(at::equal(out, by_aten(in, type))) << shape.name() << " " << type;
      }
    }
  }
}

TEST_P(ImageNormalizeOp, AgreesBetweenDevices) {
  const Inputs here = make_inputs({3, 17, 13, 3}, false, at::kCPU);
  const Inputs there = make_inputs({3, 17, 13, 3}, false, device());
  for (at::ScalarType type : kTypes)
    EXPECT_TRUE(at::equal(image_normalize(here.images, here.scale, here.shift, type),
                          image_normalize(there.images, there.scale, there.shift, type).cpu()));
}

TEST_P(ImageNormalizeOp, TakesImagesOfAnyStrides) {
  const Inputs in = make_inputs({4, 9, 8, 3}, false, device());
  Inputs sliced = in;
  sliced.images = in.images.slice(2, 1, 8, 2);
  EXPECT_TRUE(
      at::equal(image_normalize(sliced.images, in.scale, in.shift), by_aten(sliced, at::kFloat)));
}

TEST_P(ImageNormalizeOp, NamesWhatIsWrongWithItsArguments) {
  const Inputs in = make_inputs({2, 4, 4, 3}, false, device());
  const auto expect = [&](const at::Tensor& images, const at::Tensor& scale, at::ScalarType type,
                          const std::string& words) {
    expect_message([&] { image_normalize(images, scale, in.shift, type); }, words);
  };
  expect(in.images.to(at::kFloat), in.scale, at::kFloat, "must be uint8 [N, H, W, C]");
  expect(in.images[0], in.scale, at::kFloat, "must be uint8 [N, H, W, C]");
  expect(in.images, in.scale.slice(0, 0, 2), at::kFloat, "scale must be float32 [3]");
  expect(in.images, in.scale.to(at::kDouble), at::kFloat, "scale must be float32 [3]");
  expect(in.images, in.scale, at::kInt, "dtype must be float32, bfloat16 or float16");
}

TEST(ImageNormalizeMeta, HasTheShapeAndStridesOfTheRealOne) {
  for (const ImageShape& shape : image_normalize_shapes()) {
    const Inputs in = make_inputs(shape, false, at::kCPU);
    for (at::ScalarType type : kTypes) {
      const at::Tensor real = image_normalize(in.images, in.scale, in.shift, type);
      const at::Tensor meta = image_normalize(in.images.to(at::kMeta), in.scale.to(at::kMeta),
                                              in.shift.to(at::kMeta), type);
      EXPECT_TRUE(meta.is_meta());
      EXPECT_EQ(meta.sizes(), real.sizes());
      EXPECT_EQ(meta.strides(), real.strides());
      EXPECT_EQ(meta.scalar_type(), real.scalar_type());
    }
  }
}

TEST(ImageNormalizeAutograd, SaysThatItHasNoGradientInsteadOfLosingIt) {
  const Inputs in = make_inputs({2, 4, 4, 3}, false, at::kCPU);
  EXPECT_FALSE(image_normalize(in.images, in.scale, in.shift).requires_grad());
  at::Tensor scale = in.scale.clone().requires_grad_();
  at::Tensor out = image_normalize(in.images, scale, in.shift);
  EXPECT_TRUE(out.requires_grad());
  EXPECT_THROW(out.sum().backward(), c10::Error);
}

TEST(ImageNormalizeThreads, GivesTheSameBitsOnOneAndTwoThreads) {
  const Inputs in = make_inputs({8, 64, 64, 3}, false, at::kCPU);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = image_normalize(in.images, in.scale, in.shift);
  at::set_num_threads(2);
  const at::Tensor two = image_normalize(in.images, in.scale, in.shift);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, two));
}

}  // namespace
}  // namespace lehr::kernels
