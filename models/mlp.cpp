// A multi-layer perceptron on the flattened input: hidden layers with one activation, dropout after
// each, and a linear output.
#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "models/entry.h"
#include "models/layers.h"

namespace lehr::models {
namespace {

struct MlpFields {
  IntList hidden = {256, 128};
  std::string activation = "relu";
  double dropout = 0;
  static Section section();
};

// In place where the layer before does not need its own output for its gradient.
struct Activation {
  const char* name;
  at::Tensor (*apply)(at::Tensor&);
};
const Activation kActivations[] = {
    {"relu", [](at::Tensor& x) { return at::relu_(x); }},
    {"gelu", [](at::Tensor& x) { return at::gelu(x); }},
    {"silu", [](at::Tensor& x) { return at::silu(x); }},
    {"tanh", [](at::Tensor& x) { return at::tanh_(x); }},
};

Section MlpFields::section() {
  StringList names;
  for (const auto& activation : kActivations) names.push_back(activation.name);
  Declare<MlpFields> d("model", "");
  d.field("hidden", &MlpFields::hidden, "Width of each hidden layer, from the input on.")
      .at_least(1)
      .when("name", {"mlp"})
      .synonyms({"hidden_sizes", "hidden_dims", "n_neurons"});
  d.field("activation", &MlpFields::activation, "What follows each hidden layer.")
      .choices(names)
      .when("name", {"mlp"});
  d.field("dropout", &MlpFields::dropout, "Share of hidden values set to zero in training.")
      .range(0, 0.99)
      .when("name", {"mlp"});
  return d.section();
}

class Mlp : public Model {
 public:
  Mlp(const MlpFields& fields, const ModelContext& c) : dropout_(fields.dropout) {
    for (const auto& activation : kActivations)
      if (fields.activation == activation.name) activation_ = activation.apply;
    if (!activation_)
      throw field_error("activation", fmt::format("there is no activation `{}`", fields.activation),
                        "write relu, gelu, silu or tanh");
    const Scope scope(c.options, c.seed);
    int64_t width = input_size(c);
    for (size_t i = 0; i < fields.hidden.size(); ++i) {
      hidden_.push_back(
          add<Linear>(scope, fmt::format("hidden{}", i + 1), width, fields.hidden[i]));
      width = fields.hidden[i];
    }
    output_ = add<Linear>(scope, "output", width, c.outputs);
  }

  at::Tensor forward(const at::Tensor& x) override {
    at::Tensor h = x.flatten(1);
    int64_t layer = 0;
    for (const auto& linear : hidden_) {
      h = linear->forward(h);
      h = dropout(activation_(h), dropout_, layer++, is_training());
    }
    return output_->forward(h);
  }

 private:
  double dropout_;
  at::Tensor (*activation_)(at::Tensor&) = nullptr;
  std::vector<std::shared_ptr<Linear>> hidden_;
  std::shared_ptr<Linear> output_;
};

std::shared_ptr<Model> make(const FieldSource& fields, const ModelContext& c) {
  return std::make_shared<Mlp>(fields.get<MlpFields>(), c);
}

}  // namespace

ModelEntry mlp_model() {
  return {"mlp",
          "hidden layers with an activation, and dropout, on the flattened input",
          true,
          true,
          false,
          MlpFields::section,
          make,
          FixedFields({{"model.hidden", IntList{16, 8}}, {"model.dropout", 0.1}}),
          toy_table(12, 3)};
}

}  // namespace lehr::models
