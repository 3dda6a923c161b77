// One linear layer on the flattened input: logistic regression under cross-entropy, linear
// regression under a squared error. Convex, hence the model against which everything else has to
// show its worth.
#include <ATen/ATen.h>

#include "models/entry.h"
#include "models/layers.h"

namespace lehr::models {
namespace {

class Logistic : public Model {
 public:
  explicit Logistic(const ModelContext& c) {
    linear_ = add<Linear>(Scope(c.options, c.seed), "linear", input_size(c), c.outputs);
  }
  at::Tensor forward(const at::Tensor& x) override { return linear_->forward(x.flatten(1)); }

 private:
  std::shared_ptr<Linear> linear_;
};

Section section() { return {"model", "", {}}; }

std::shared_ptr<Model> make(const FieldSource&, const ModelContext& c) {
  return std::make_shared<Logistic>(c);
}

}  // namespace

ModelEntry logistic_model() {
  return {"logistic",
          "one linear layer on the flattened input",
          true,
          true,
          false,
          section,
          make,
          FixedFields(),
          toy_table(12, 3)};
}

}  // namespace lehr::models
