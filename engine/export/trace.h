// TorchScript behind a small handle: mirror a model as a module, trace its forward, compile source
// around it, save, load, call. What differs between LibTorch releases, and the headers that cost
// half a minute, are in trace.cpp and nowhere else in this room.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/data/dataset.h"
#include "engine/export/sampling.h"
#include "models/model.h"

namespace lehr::artefact {

// What stands around a traced model: attributes, and source that defines methods on `self`. The
// source sees `self.model`, and torch.float32, torch.channels_last and the like as in Python.
struct Surroundings {
  std::string source;
  NamedTensors buffers;
  std::vector<std::pair<std::string, int64_t>> integers;
  std::vector<std::pair<std::string, StringList>> string_lists;
  std::vector<std::pair<std::string, std::map<std::string, int64_t>>> string_maps;
};

// A TorchScript module; copies share it. Calls are without gradients and may come from several
// threads.
class Script {
 public:
  struct Impl;
  explicit Script(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

  at::Tensor core(const at::Tensor& x) const;  // self.model, or a core's own forward
  at::Tensor preprocess(const data::RawBatch& raw) const;
  std::vector<at::Tensor> forward(const data::RawBatch& raw) const;  // the members of its tuple
  // The wrapper's `generate`: tokens int64 [N, T] with `new_tokens` more, [N, T + new_tokens].
  at::Tensor generate(const at::Tensor& tokens, int64_t new_tokens, const Sampling& sampling) const;
  int64_t integer(const std::string& attribute) const;
  StringList string_list(const std::string& attribute) const;
  NamedTensors tensors() const;  // parameters and buffers, dotted names
  // Kinds of all nodes in all methods, "aten::conv2d", "prim::Loop", ...
  std::set<std::string> operators() const;
  // The file's content, in pieces: a zip archive of stored members only, without debug information,
  // so that a reader needs no inflater and the same model gives the same bytes. Takes as much
  // memory again as the tensors.
  void save(const std::function<void(const void*, size_t)>& write) const;
  std::string archive() const;  // the same as one string

  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

// Runs the model once on `example` in eval and records what ATen was asked to do. Parameters keep
// their names and are shared, not copied; they ask for no gradients there. Sizes and branches are
// baked in silently: compare before trusting.
Script trace(models::Model& model, const at::Tensor& example);
// A module with the core as `self.model` and the surroundings compiled around it. Throws
// Error{kInternal} with the compiler's message when the source does not compile.
Script wrap(const Script& core, const Surroundings& surroundings);
// Runs `__setstate__` of the file, if it has one: scan the bytes first. Throws std::exception, also
// when an attribute is not of the type that its class declares.
Script load_script(std::string_view archive);
// What an exception of LibTorch or of its interpreter says: its last line, after the traceback.
std::string problem_of(const std::exception& e);

std::string libtorch_version();

}  // namespace lehr::artefact
