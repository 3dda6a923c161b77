// A small convolutional network for small images. A stage is convolution, 2 x 2 max-pool, batch
// norm, ReLU, in this order: pooling first leaves norm and ReLU a quarter of the elements, which on
// a CPU makes a training step 1.25 to 1.4 times as fast at the same accuracy (README).
#include <ATen/ATen.h>

#include "models/entry.h"
#include "models/layers.h"

namespace lehr::models {
namespace {

struct CnnFields {
  IntList channels = {16, 32};
  int64_t hidden = 128;
  double dropout = 0;
  bool batch_norm = true;
  static Section section();
};

Section CnnFields::section() {
  Declare<CnnFields> d("model", "");
  d.field("channels", &CnnFields::channels,
          "Output channels of each stage: 3 x 3 convolution, 2 x 2 max-pool, norm, ReLU.")
      .at_least(1)
      .when("name", {"cnn"})
      .synonyms({"conv_channels", "filters"});
  d.field("hidden", &CnnFields::hidden,
          "Width of the fully connected layer before the output; 0 for none.")
      .range(0, 1 << 20)
      .when("name", {"cnn"})
      .synonyms({"fc", "hidden_size"});
  d.field("dropout", &CnnFields::dropout,
          "Share of values before the output layer set to zero in training.")
      .range(0, 0.99)
      .when("name", {"cnn"});
  d.field("batch_norm", &CnnFields::batch_norm,
          "Normalise each channel over the batch; without it convolutions have a bias instead.")
      .when("name", {"cnn"});
  return d.section();
}

class Cnn : public Model {
 public:
  Cnn(const CnnFields& fields, const ModelContext& c) : dropout_(fields.dropout) {
    const Scope scope(c.options, c.seed);
    int64_t channels = c.channels, height = c.height, width = c.width;
    for (size_t i = 0; i < fields.channels.size(); ++i) {
      ConvShape shape;
      shape.in = channels, shape.out = fields.channels[i], shape.bias = !fields.batch_norm;
      convs_.push_back(add<Conv2d>(scope, fmt::format("conv{}", i + 1), shape));
      if (fields.batch_norm)
        norms_.push_back(add<BatchNorm2d>(scope, fmt::format("bn{}", i + 1), shape.out));
      channels = shape.out, height /= 2, width /= 2;
    }
    if (height < 1 || width < 1)
      throw field_error("channels",
                        fmt::format("{} stages halve an image of {} x {} to nothing",
                                    fields.channels.size(), c.height, c.width),
                        "name fewer stages");
    int64_t features = channels * height * width;
    if (fields.hidden > 0) {
      fc_ = add<Linear>(scope, "fc", features, fields.hidden);
      features = fields.hidden;
    }
    output_ = add<Linear>(scope, "output", features, c.outputs);
  }

  at::Tensor forward(const at::Tensor& input) override {
    at::Tensor x = channels_last(input);  // [B, C, H, W]
    for (size_t i = 0; i < convs_.size(); ++i) {
      x = max_pool(convs_[i]->forward(x), 2, 2);
      if (!norms_.empty()) x = norms_[i]->forward(x);
      x = at::relu_(x);
    }
    x = x.flatten(1);  // [B, C * H * W]
    if (fc_) {
      x = fc_->forward(x);
      x = at::relu_(x);
    }
    return output_->forward(dropout(x, dropout_, 0, is_training()));
  }

 private:
  double dropout_;
  std::vector<std::shared_ptr<Conv2d>> convs_;
  std::vector<std::shared_ptr<BatchNorm2d>> norms_;
  std::shared_ptr<Linear> fc_, output_;
};

std::shared_ptr<Model> make(const FieldSource& fields, const ModelContext& c) {
  return std::make_shared<Cnn>(fields.get<CnnFields>(), c);
}

}  // namespace

ModelEntry cnn_model() {
  return {"cnn",
          "a few convolution, max-pool, norm, ReLU stages and a small classifier, for small images",
          true,
          false,
          false,
          CnnFields::section,
          make,
          FixedFields({{"model.channels", IntList{4, 8}},
                       {"model.hidden", int64_t{16}},
                       {"model.dropout", 0.1}}),
          toy_images(1, 12, 4)};
}

}  // namespace lehr::models
