#include "engine/export/trace.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/headeronly/version.h>

#include <cctype>
#include <cstring>

#include "engine/base/error.h"

namespace lehr::artefact {

namespace jit = torch::jit;

struct Script::Impl {
  jit::Module module;
  bool is_wrapped = false;
};

namespace {

constexpr char kValueError[] = "builtins.ValueError";

// any path of names is made a class name that a person recognises: Layer_layer1_0_conv1
std::string class_name(const std::string& path) {
  std::string name = "Layer_" + path;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

// The same tensors under the same names: the tracer knows a parameter by its identity, so a copy
// would become a constant.
jit::Module mirror(const models::Module& module, const std::string& type, const std::string& path,
                   const std::shared_ptr<jit::CompilationUnit>& unit) {
  jit::Module out(c10::QualifiedName("__torch__." + type), unit, /*shouldMangle=*/true);
  out.register_attribute("training", c10::BoolType::get(), false);
  for (const auto& [name, tensor] : module.own_parameters())
    out.register_parameter(name, tensor, /*is_buffer=*/false);
  for (const auto& [name, tensor] : module.own_buffers()) out.register_buffer(name, tensor);
  for (const auto& [name, child] : module.children()) {
    const std::string below = path.empty() ? name : path + "." + name;
    out.register_module(name, mirror(*child, class_name(below), below, unit));
  }
  return out;
}

// A server wants no gradients: the same memory without the wish for them. Only after the trace,
// which knows parameters by their identity.
void detach_parameters(jit::Module& module) {
  for (const auto& child : module.named_children()) {
    jit::Module below = child.value;
    detach_parameters(below);
  }
  for (const auto& parameter : module.named_parameters(/*recurse=*/false))
    module.setattr(parameter.name, parameter.value.detach());
}

// LibTorch puts into a module what the file holds, without comparing it with what its class
// declares, and later takes the class at its word.
void check_attributes(const jit::Module& module, const std::string& path) {
  const auto& type = *module.type();
  for (size_t i = 0; i < type.numAttributes(); ++i) {
    const c10::IValue& value = module._ivalue()->getSlot(i);
    const std::string name = path + type.getAttributeName(i);
    if (!value.type()->isSubtypeOf(*type.getAttribute(i)))
      throw std::runtime_error(name + " is no " + type.getAttribute(i)->annotation_str());
    if (value.isObject()) check_attributes(jit::Module(value.toObject()), name + ".");
  }
}

// `ValueError` in source: an exception whose text is a line for a person
struct ValueError : jit::SugaredValue {
  std::string kind() const override { return "exception"; }
  std::shared_ptr<jit::SugaredValue> call(const jit::SourceRange& where,
                                          jit::GraphFunction& function,
                                          at::ArrayRef<jit::NamedValue> arguments,
                                          at::ArrayRef<jit::NamedValue>, size_t) override {
    auto& graph = *function.graph();
    return std::make_shared<jit::ExceptionMessageValue>(
        arguments.at(0).value(graph), jit::insertConstant(graph, kValueError, where));
  }
};

// `torch` as Python's TorchScript sees it: operators, and the names of dtypes and memory formats,
// which the C++ front end alone does not know.
struct TorchNames : jit::BuiltinModule {
  TorchNames() : BuiltinModule("aten") {}
  std::shared_ptr<jit::SugaredValue> attr(const jit::SourceRange& where,
                                          jit::GraphFunction& function,
                                          const std::string& field) override {
    static const std::map<std::string, int64_t> kNames = {
        {"uint8", int64_t(at::kByte)},
        {"int32", int64_t(at::kInt)},
        {"int64", int64_t(at::kLong)},
        {"float32", int64_t(at::kFloat)},
        {"float64", int64_t(at::kDouble)},
        {"bool", int64_t(at::kBool)},
        {"contiguous_format", int64_t(at::MemoryFormat::Contiguous)},
        {"channels_last", int64_t(at::MemoryFormat::ChannelsLast)}};
    if (auto known = kNames.find(field); known != kNames.end())
      return std::make_shared<jit::SimpleValue>(
          function.graph()->insertConstant(known->second, where));
    return BuiltinModule::attr(where, function, field);
  }
};

struct TorchResolver : jit::NativeResolver {
  std::shared_ptr<jit::SugaredValue> resolveValue(const std::string& name,
                                                  jit::GraphFunction& function,
                                                  const jit::SourceRange& where) override {
    if (name == "torch") return std::make_shared<TorchNames>();
    if (name == "ValueError") return std::make_shared<ValueError>();
    return NativeResolver::resolveValue(name, function, where);
  }
};

std::vector<c10::IValue> inputs_of(const data::RawBatch& raw) {
  if (raw.images.defined()) return {raw.images};
  if (raw.tokens.defined()) return {raw.tokens};
  c10::List<c10::List<std::string>> strings;
  for (const auto& row : raw.strings) strings.push_back(c10::List<std::string>(row));
  return {raw.numbers, strings};
}

void collect(const jit::Block& block, std::set<std::string>& kinds) {
  for (const auto* node : block.nodes()) {
    kinds.insert(node->kind().toQualString());
    for (const auto* inner : node->blocks()) collect(*inner, kinds);
  }
}

// a loaded archive that lies in memory
class Memory : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit Memory(std::string_view bytes) : bytes_(bytes) {}
  size_t size() const override { return bytes_.size(); }
  size_t read(uint64_t position, void* buffer, size_t n, const char*) const override {
    if (position >= bytes_.size()) return 0;
    n = std::min<size_t>(n, bytes_.size() - position);
    std::memcpy(buffer, bytes_.data() + position, n);
    return n;
  }

 private:
  std::string_view bytes_;
};

}  // namespace

Script trace(models::Model& model, const at::Tensor& example) {
  at::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.train(false);
  auto unit = std::make_shared<jit::CompilationUnit>();
  auto impl = std::make_shared<Script::Impl>(Script::Impl{mirror(model, "Model", "", unit)});
  jit::Module& module = impl->module;
  try {
    auto [state, outputs] = jit::tracer::trace(
        {example},
        [&](jit::Stack inputs) { return jit::Stack{model.forward(inputs.at(0).toTensor())}; },
        [](const torch::autograd::Variable&) { return ""; }, /*strict=*/true,
        /*force_outplace=*/false, &module, {"x"});
    auto* method = module._ivalue()->compilation_unit()->create_function(
        c10::QualifiedName(*module.type()->name(), "forward"), state->graph);
    module.type()->addMethod(method);
  } catch (...) {
    jit::tracer::abandon();
    model.train(was_training);
    throw;
  }
  model.train(was_training);
  detach_parameters(module);
  return Script(impl);
}

Script wrap(const Script& core, const Surroundings& around) {
  const jit::Module& model = core.impl()->module;
  auto impl = std::make_shared<Script::Impl>(
      Script::Impl{jit::Module(c10::QualifiedName("__torch__.Artefact"),
                               model._ivalue()->compilation_unit(), /*shouldMangle=*/true),
                   true});
  jit::Module& module = impl->module;
  module.register_attribute("training", c10::BoolType::get(), false);
  module.register_module("model", model);
  for (const auto& [name, tensor] : around.buffers) module.register_buffer(name, tensor);
  for (const auto& [name, value] : around.integers)
    module.register_attribute(name, c10::IntType::get(), value);
  for (const auto& [name, values] : around.string_lists)
    module.register_attribute(name, c10::ListType::ofStrings(), c10::List<std::string>(values));
  for (const auto& [name, values] : around.string_maps) {
    c10::Dict<std::string, int64_t> dict;
    for (const auto& [key, value] : values) dict.insert(key, value);
    module.register_attribute(
        name, c10::DictType::create(c10::StringType::get(), c10::IntType::get()), dict);
  }
  try {
    module.define(around.source, std::make_shared<TorchResolver>());
  } catch (const std::exception& e) {
    throw Error(Code::kInternal,
                std::string("the artefact's TorchScript source does not compile: ") + e.what());
  }
  return Script(impl);
}

Script load_script(std::string_view archive) {
  auto module = jit::load(std::make_shared<Memory>(archive), c10::Device(at::kCPU),
                          /*load_debug_files=*/false);
  check_attributes(module, "");
  // a model may have a child `model` of its own
  const bool is_wrapped = module.find_method("preprocess").has_value();
  return Script(std::make_shared<Script::Impl>(Script::Impl{std::move(module), is_wrapped}));
}

at::Tensor Script::core(const at::Tensor& x) const {
  at::NoGradGuard no_grad;
  jit::Module module = impl_->is_wrapped ? impl_->module.attr("model").toModule() : impl_->module;
  return module.forward({x}).toTensor();
}

at::Tensor Script::preprocess(const data::RawBatch& raw) const {
  at::NoGradGuard no_grad;
  return impl_->module.get_method("preprocess")(inputs_of(raw)).toTensor();
}

std::vector<at::Tensor> Script::forward(const data::RawBatch& raw) const {
  at::NoGradGuard no_grad;
  // the tuple lives as long as this value
  const c10::IValue answer = impl_->module.get_method("forward")(inputs_of(raw));
  std::vector<at::Tensor> outputs;
  for (const auto& value : answer.toTupleRef().elements()) outputs.push_back(value.toTensor());
  return outputs;
}

at::Tensor Script::generate(const at::Tensor& tokens, int64_t new_tokens,
                            const Sampling& sampling) const {
  at::NoGradGuard no_grad;
  return impl_->module
      .get_method("generate")(
          {tokens, new_tokens, sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed})
      .toTensor();
}

int64_t Script::integer(const std::string& attribute) const {
  return impl_->module.attr(attribute).toInt();
}

StringList Script::string_list(const std::string& attribute) const {
  StringList values;
  for (const auto& value : impl_->module.attr(attribute).toListRef())
    values.push_back(value.toStringRef());
  return values;
}

NamedTensors Script::tensors() const {
  NamedTensors tensors;
  for (const auto& parameter : impl_->module.named_parameters())
    tensors.push_back({parameter.name, parameter.value});
  for (const auto& buffer : impl_->module.named_buffers())
    tensors.push_back({buffer.name, buffer.value});
  return tensors;
}

std::set<std::string> Script::operators() const {
  std::set<std::string> kinds;
  for (const auto& module : impl_->module.modules())
    for (const auto& method : module.get_methods())
      collect(*jit::toGraphFunction(method.function()).graph()->block(), kinds);
  return kinds;
}

void Script::save(const std::function<void(const void*, size_t)>& write) const {
  // LibTorch deflates source and adds pickles of debug information: write again what matters,
  // stored
  std::string whole;
  size_t bytes = 1 << 20;
  for (const auto& [name, tensor] : tensors()) bytes += tensor.nbytes();
  whole.reserve(bytes);
  jit::ExportModule(impl_->module, [&](const void* data, size_t n) {
    whole.append(static_cast<const char*>(data), n);
    return n;
  });
  caffe2::serialize::PyTorchStreamReader reader(std::make_shared<Memory>(whole));
  // the writer ends its file in its destructor, from where nothing may be thrown
  std::exception_ptr failure;
  {
    caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, size_t n) {
      try {
        if (!failure) write(data, n);
      } catch (...) {
        failure = std::current_exception();
      }
      return n;
    });
    for (const auto& name : reader.getAllRecords()) {
      if (failure || name.ends_with(".debug_pkl") || name == ".data/serialization_id") continue;
      auto [data, size] = reader.getRecord(name);
      writer.writeRecord(name, data.get(), size, /*compress=*/false);
    }
    writer.writeEndOfFile();
  }
  if (failure) std::rethrow_exception(failure);
}

std::string Script::archive() const {
  std::string bytes;
  save([&](const void* data, size_t n) { bytes.append(static_cast<const char*>(data), n); });
  return bytes;
}

std::string problem_of(const std::exception& e) {
  const auto* of_libtorch = dynamic_cast<const c10::Error*>(&e);
  std::string text = of_libtorch ? of_libtorch->what_without_backtrace() : e.what();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  text = text.substr(text.rfind('\n') + 1);
  const std::string prefix = std::string(kValueError) + ": ";
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

std::string libtorch_version() { return TORCH_VERSION; }

}  // namespace lehr::artefact
