// Shows image_normalize to LibTorch: schema, checks, CPU, Meta and Autograd.
#include "kernels/image_normalize/image_normalize_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "kernels/common/parallel.h"

namespace lehr::kernels {
namespace {

Float float_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Float::kFloat32;
    case at::kBFloat16:
      return Float::kBFloat16;
    case at::kHalf:
      return Float::kFloat16;
    default:
      TORCH_CHECK(false, "image_normalize: dtype must be float32, bfloat16 or float16, not ", type);
  }
}

// shapes, dtypes and devices; the output, allocated on whatever device (Meta too)
at::Tensor check_and_allocate(const at::Tensor& images, const at::Tensor& scale,
                              const at::Tensor& shift, at::ScalarType type) {
  float_type(type);
  TORCH_CHECK(images.scalar_type() == at::kByte && images.dim() == 4,
              "image_normalize: images must be uint8 [N, H, W, C], not ", images.scalar_type(), " ",
              images.sizes());
  const int64_t channels = images.size(3);
  TORCH_CHECK(channels >= 1 && channels <= INT32_MAX, "image_normalize: images have ", channels,
              " channels");
  auto check = [&](const at::Tensor& constants, const char* name) {
    TORCH_CHECK(constants.scalar_type() == at::kFloat && constants.dim() == 1 &&
                    constants.size(0) == channels,
                "image_normalize: ", name, " must be float32 [", channels, "], not ",
                constants.scalar_type(), " ", constants.sizes());
    TORCH_CHECK(constants.device() == images.device(), "image_normalize: ", name, " is on ",
                constants.device(), " and images on ", images.device());
  };
  check(scale, "scale");
  check(shift, "shift");
  return at::empty({images.size(0), channels, images.size(1), images.size(2)},
                   images.options().dtype(type).memory_format(at::MemoryFormat::ChannelsLast));
}

at::Tensor on_cpu(const at::Tensor& images, const at::Tensor& scale, const at::Tensor& shift,
                  at::ScalarType type) {
  ImageNormalizeCall call = prepare_image_normalize(images, scale, shift, type);
  const int64_t channels = call.args.channels;
  // about 32k elements a task: below that a thread costs more than it brings
  parallel_for(
      0, call.args.pixels, std::max<int64_t>(1, 32768 / channels), [&](int64_t begin, int64_t end) {
        ImageNormalize part = call.args;
        part.input += begin * channels;
        part.output = static_cast<char*>(part.output) + begin * channels * bytes_of(part.type);
        part.pixels = end - begin;
        image_normalize_cpu(part);
      });
  return call.output;
}

}  // namespace

ImageNormalizeCall prepare_image_normalize(const at::Tensor& images, const at::Tensor& scale,
                                           const at::Tensor& shift, at::ScalarType type) {
  ImageNormalizeCall call;
  call.output = check_and_allocate(images, scale, shift, type);
  call.images = images.contiguous();
  call.scale = scale.contiguous();
  call.shift = shift.contiguous();
  call.args = {call.images.const_data_ptr<uint8_t>(),
               call.output.mutable_data_ptr(),
               call.scale.const_data_ptr<float>(),
               call.shift.const_data_ptr<float>(),
               images.size(0) * images.size(1) * images.size(2),
               static_cast<int32_t>(images.size(3)),
               float_type(type)};
  return call;
}

at::Tensor image_normalize(const at::Tensor& images, const at::Tensor& scale,
                           const at::Tensor& shift, at::ScalarType type) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::image_normalize", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                         at::ScalarType)>();
  return op.call(images, scale, shift, type);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("image_normalize(Tensor images, Tensor scale, Tensor shift, ScalarType dtype) -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) { m.impl("image_normalize", on_cpu); }
TORCH_LIBRARY_IMPL(lehr, Meta, m) { m.impl("image_normalize", check_and_allocate); }
// the output of an input that requires a gradient says so, and its backward throws
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("image_normalize", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
