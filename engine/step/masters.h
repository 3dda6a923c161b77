// The float32 weights that an optimizer moves. They are the model's own, but under bf16-master:
// there the model holds parameters of two and more dimensions in bfloat16, rounded from a float32
// master after every update. (Norms and biases weigh nothing and stay float32.)
#pragma once

#include <functional>
#include <vector>

#include "engine/base/named_tensor.h"
#include "models/module.h"

namespace lehr::step {

class Masters {
 public:
  // With `low`, gives the model's parameters bfloat16 data; the old data are the masters.
  Masters(const models::Module& model, bool low);
  // Float32, every parameter of the model in its order.
  const NamedTensors& weights() const { return weights_; }
  // The model's own tensor of that weight where it is another, else undefined.
  at::Tensor copy_of(const std::string& name) const;
  void round();  // the model's own anew, after its masters have moved
  // `work` sees a model on its masters and may change them; the model's own are rounded anew after.
  void in_float32(const std::function<void()>& work);

 private:
  struct Copy {
    at::Tensor own, rounded;  // the parameter and the bfloat16 memory behind it; or neither
  };
  NamedTensors weights_;
  std::vector<Copy> copies_;
};

}  // namespace lehr::step
