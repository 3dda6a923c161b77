// A tree of named parameters and buffers. LibTorch's nn::Module cannot be moved to the meta device
// and its header costs a source file half a minute; this is the small part of it that Lehr needs.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/named_tensor.h"

namespace lehr::models {

class Module {
 public:
  virtual ~Module() = default;
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Own and children's, dotted names, in order of registration ("layer1.0.conv1.weight").
  NamedTensors parameters() const;
  NamedTensors buffers() const;
  // Sets the mode of the whole tree: dropout and batch statistics in training, running values in
  // eval.
  void train(bool on = true);
  bool is_training() const { return training_; }

  // For the exporter, which mirrors the tree.
  const NamedTensors& own_parameters() const { return parameters_; }
  const NamedTensors& own_buffers() const { return buffers_; }
  const std::vector<std::pair<std::string, std::shared_ptr<Module>>>& children() const {
    return children_;
  }

 protected:
  at::Tensor add_parameter(std::string name, at::Tensor tensor);  // sets requires_grad
  at::Tensor add_buffer(std::string name, at::Tensor tensor);
  template <class M>
  std::shared_ptr<M> add_module(std::string name, std::shared_ptr<M> module) {
    children_.emplace_back(std::move(name), module);
    return module;
  }
  // Makes a child inside `scope` and adds it under the same name: fc_ = add<Linear>(scope, "fc", 8,
  // 2).
  template <class M, class Scope, class... Args>
  std::shared_ptr<M> add(const Scope& scope, const std::string& name, Args&&... args) {
    return add_module(name, std::make_shared<M>(scope.inside(name), std::forward<Args>(args)...));
  }

 private:
  NamedTensors parameters_, buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  bool training_ = true;
};

}  // namespace lehr::models
