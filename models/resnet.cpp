// ResNet (He et al., CVPR 2016) with torchvision's structure, parameter names and initial values,
// so that weights can be exchanged. Stride 2 sits in the 3 x 3 convolution of a bottleneck
// ("v1.5").
#include <ATen/ATen.h>

#include <array>

#include "models/entry.h"
#include "models/layers.h"

namespace lehr::models {
namespace {

struct ResnetFields {
  int64_t depth = 18;
  std::string stem = "imagenet";
  int64_t width = 64;
  static Section section();
};

struct Depth {
  int64_t depth;
  bool bottleneck;
  std::array<int64_t, 4> blocks;
};
constexpr Depth kDepths[] = {{18, false, {2, 2, 2, 2}},
                             {34, false, {3, 4, 6, 3}},
                             {50, true, {3, 4, 6, 3}},
                             {101, true, {3, 4, 23, 3}}};

Section ResnetFields::section() {
  Declare<ResnetFields> d("model", "");
  d.field("depth", &ResnetFields::depth, "Number of layers: 18, 34, 50 or 101.")
      .range(18, 101)
      .when("name", {"resnet"});
  d.field("stem", &ResnetFields::stem,
          "What comes first: imagenet is a 7 x 7 convolution of stride 2 and a max-pool, cifar a "
          "3 x 3 convolution of stride 1, for images below about 64 pixels.")
      .choices({"imagenet", "cifar"})
      .when("name", {"resnet"});
  // below 8 oneDNN's AVX2 weight gradient of a 1 x 1 convolution writes beyond its memory (README)
  d.field("width", &ResnetFields::width, "Channels of the first group of blocks.")
      .range(8, 4096)
      .when("name", {"resnet"})
      .synonyms({"base_width"});
  return d.section();
}

ConvShape conv(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return {in, out, kernel, stride, kernel / 2, /*bias=*/false, ConvInit::kFanOut};
}

// The shortcut where shape changes; children "0" and "1" as in torchvision's Sequential.
class Downsample : public Module {
 public:
  Downsample(const Scope& scope, int64_t in, int64_t out, int64_t stride) {
    conv_ = add<Conv2d>(scope, "0", conv(in, out, 1, stride));
    norm_ = add<BatchNorm2d>(scope, "1", out);
  }
  at::Tensor forward(const at::Tensor& x) { return norm_->forward(conv_->forward(x)); }

 private:
  std::shared_ptr<Conv2d> conv_;
  std::shared_ptr<BatchNorm2d> norm_;
};

// Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 to four times the channels, around a shortcut.
class Block : public Module {
 public:
  Block(const Scope& scope, bool bottleneck, int64_t in, int64_t width, int64_t stride) {
    const int64_t out = bottleneck ? 4 * width : width;
    if (bottleneck) {
      stage(scope, conv(in, width, 1, 1));
      stage(scope, conv(width, width, 3, stride));
      stage(scope, conv(width, out, 1, 1));
    } else {
      stage(scope, conv(in, width, 3, stride));
      stage(scope, conv(width, width, 3, 1));
    }
    if (stride != 1 || in != out)
      downsample_ = add<Downsample>(scope, "downsample", in, out, stride);
  }

  at::Tensor forward(const at::Tensor& x) {
    at::Tensor h = x;
    for (size_t i = 0; i < convs_.size(); ++i) {
      h = norms_[i]->forward(convs_[i]->forward(h));
      if (i + 1 < convs_.size()) h = at::relu_(h);
    }
    h += downsample_ ? downsample_->forward(x) : x;
    return at::relu_(h);
  }

 private:
  void stage(const Scope& scope, const ConvShape& shape) {
    const size_t i = convs_.size() + 1;
    convs_.push_back(add<Conv2d>(scope, fmt::format("conv{}", i), shape));
    norms_.push_back(add<BatchNorm2d>(scope, fmt::format("bn{}", i), shape.out));
  }
  std::vector<std::shared_ptr<Conv2d>> convs_;
  std::vector<std::shared_ptr<BatchNorm2d>> norms_;
  std::shared_ptr<Downsample> downsample_;
};

// Blocks one after the other, named "0", "1", ...
class Layer : public Module {
 public:
  Layer(const Scope& scope, const Depth& d, size_t group, int64_t in, int64_t width) {
    const int64_t out = d.bottleneck ? 4 * width : width;
    for (int64_t i = 0; i < d.blocks[group]; ++i)
      blocks_.push_back(add<Block>(scope, fmt::format("{}", i), d.bottleneck, i == 0 ? in : out,
                                   width, i == 0 && group > 0 ? 2 : 1));
  }
  at::Tensor forward(at::Tensor x) {
    for (const auto& block : blocks_) x = block->forward(x);
    return x;
  }

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

class Resnet : public Model {
 public:
  Resnet(const ResnetFields& fields, const Depth& d, const ModelContext& c)
      : pools_(fields.stem == "imagenet") {
    const Scope scope(c.options, c.seed);
    int64_t in = fields.width;
    conv1_ = add<Conv2d>(scope, "conv1",
                         pools_ ? conv(c.channels, in, 7, 2) : conv(c.channels, in, 3, 1));
    bn1_ = add<BatchNorm2d>(scope, "bn1", in);
    for (size_t group = 0; group < 4; ++group) {
      const int64_t width = fields.width << group;
      layers_.push_back(add<Layer>(scope, fmt::format("layer{}", group + 1), d, group, in, width));
      in = d.bottleneck ? 4 * width : width;
    }
    fc_ = add<Linear>(scope, "fc", in, c.outputs);
  }

  at::Tensor forward(const at::Tensor& input) override {
    at::Tensor x = bn1_->forward(conv1_->forward(channels_last(input)));
    x = at::relu_(x);
    if (pools_) x = max_pool(x, 3, 2, 1);
    for (const auto& layer : layers_) x = layer->forward(x);
    return fc_->forward(mean_pool(x));
  }

 private:
  bool pools_;
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<BatchNorm2d> bn1_;
  std::vector<std::shared_ptr<Layer>> layers_;
  std::shared_ptr<Linear> fc_;
};

std::shared_ptr<Model> make(const FieldSource& source, const ModelContext& c) {
  const auto fields = source.get<ResnetFields>();
  for (const Depth& d : kDepths)
    if (d.depth == fields.depth) return std::make_shared<Resnet>(fields, d, c);
  throw field_error("depth", fmt::format("there is no ResNet-{}", fields.depth),
                    "write 18, 34, 50 or 101");
}

}  // namespace

ModelEntry resnet_model() {
  return {"resnet",
          "ResNet-18, 34, 50 or 101, equal to torchvision's for the same weights",
          true,
          false,
          false,
          ResnetFields::section,
          make,
          FixedFields({{"model.stem", std::string("cifar")}, {"model.width", int64_t{8}}}),
          toy_images(3, 16, 4)};
}

}  // namespace lehr::models
