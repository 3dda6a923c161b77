#include "engine/export/verify.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <fmt/format.h>

#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/base/host_bytes.h"
#include "engine/export/wrapper.h"

namespace lehr::artefact {
namespace {

// the JIT profiles a graph on its first runs and then optimizes it: the last run counts as much
constexpr int kRuns = 3;

std::string describe(const at::Tensor& got, const at::Tensor& wanted) {
  if (got.sizes() != wanted.sizes())
    return fmt::format("shape [{}] instead of [{}]", fmt::join(got.sizes(), ", "),
                       fmt::join(wanted.sizes(), ", "));
  if (got.scalar_type() != wanted.scalar_type())
    return fmt::format("{} instead of {}", toString(got.scalar_type()),
                       toString(wanted.scalar_type()));
  const at::Tensor gap = (got.to(at::kDouble) - wanted.to(at::kDouble)).abs();
  return fmt::format("largest difference {:.3g}", gap.max().item<double>());
}

// One operator as it ran: what it returned, the layer whose parameter it took, and its place in the
// order of ends; it called all that ended since `begin`.
struct Operation {
  std::string name, layer;
  std::vector<at::Tensor> outputs;
  size_t begin, end;
};

struct Recorder {
  std::map<const void*, std::string> layers;  // by parameter memory
  std::vector<Operation> operations;
};
thread_local Recorder* recorder = nullptr;

struct Context : at::ObserverContext {
  std::string layer;
  size_t begin = 0;
};

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  auto context = std::make_unique<Context>();
  if (recorder == nullptr) return context;
  context->begin = recorder->operations.size();
  for (const auto& input : function.inputs()) {
    if (!input.isTensor() || !input.toTensor().defined() || !input.toTensor().has_storage())
      continue;
    auto found = recorder->layers.find(input.toTensor().storage().data());
    if (found != recorder->layers.end()) context->layer = found->second;
  }
  return context;
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (recorder == nullptr) return;
  const std::string name = function.name();
  // memory that nothing was written to yet, and views of what was compared already
  if (name.starts_with("aten::empty") || name == "aten::detach" || name == "aten::alias" ||
      name == "aten::resize_")
    return;
  at::DisableRecordFunctionGuard quiet;
  const auto& started = *static_cast<Context*>(context);
  Operation operation{name, started.layer, {}, started.begin, recorder->operations.size()};
  for (const auto& output : function.outputs())
    if (output.isTensor() && output.toTensor().defined())
      operation.outputs.push_back(output.toTensor().clone());
  if (!operation.outputs.empty()) recorder->operations.push_back(std::move(operation));
}

// every operator that `work` runs, nested ones before those that call them; `problem` is the
// exception that ended it, if one did
std::vector<Operation> record(const NamedTensors& parameters, const std::string& prefix,
                              const std::function<void()>& work, std::string* problem) {
  Recorder mine;
  for (const auto& [name, tensor] : parameters) {
    if (!name.starts_with(prefix)) continue;
    const std::string path = name.substr(prefix.size());
    const size_t dot = path.rfind('.');
    mine.layers[tensor.storage().data()] = dot == std::string::npos ? path : path.substr(0, dot);
  }
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(on_start, on_end)
                                                     .needsInputs(true)
                                                     .needsOutputs(true)
                                                     .scopes({at::RecordScope::FUNCTION}));
  recorder = &mine;
  try {
    work();
  } catch (const std::exception& e) {  // the interpreter's are no c10::Error
    *problem = problem_of(e);
  }
  recorder = nullptr;
  at::removeCallback(handle);
  return std::move(mine.operations);
}

// only operators that both ran: a trace holds aten::_convolution where C++ calls aten::conv2d
std::vector<Operation> shared(std::vector<Operation> operations,
                              const std::vector<Operation>& others) {
  std::set<std::string> names;
  for (const auto& other : others) names.insert(other.name);
  std::erase_if(operations,
                [&](const Operation& operation) { return !names.count(operation.name); });
  return operations;
}

// runs both once more with every operator recorded
std::string locate(const Script& script, models::Model& live, const at::Tensor& inputs) {
  std::string problem, ignored;
  NamedTensors own = live.parameters();
  for (auto& buffer : live.buffers()) own.push_back(buffer);
  NamedTensors theirs = script.tensors();
  const bool is_core = !theirs.empty() && !own.empty() && theirs.front().name == own.front().name;
  const std::string prefix = is_core ? "" : "model.";
  auto wanted = record(
      own, "", [&] { evaluate(live, inputs); }, &ignored);
  auto got = record(
      theirs, prefix, [&] { script.core(inputs); }, &problem);
  const std::vector<Operation> want = shared(wanted, got), have = shared(got, wanted);
  std::string before;  // the layer that came last
  auto place = [&](const Operation& operation) {
    if (!operation.layer.empty()) return fmt::format("in layer `{}`", operation.layer);
    return before.empty() ? "before the first layer with weights"
                          : fmt::format("after layer `{}`", before);
  };
  for (size_t i = 0; i < want.size() && i < have.size(); ++i) {
    if (have[i].name != want[i].name)
      return fmt::format("{} ({}): the trace runs {} there", place(want[i]), want[i].name,
                         have[i].name);
    for (size_t k = 0; k < want[i].outputs.size(); ++k) {
      if (k < have[i].outputs.size() && same_bytes(have[i].outputs[k], want[i].outputs[k]))
        continue;
      // the operator of the model that called it says more than the copy inside it
      size_t caller = i;
      for (size_t c = i + 1; c < want.size() && c < have.size(); ++c)
        if (want[c].begin <= want[i].end && want[c].name == have[c].name) caller = c;
      return fmt::format("{} ({}): {}", place(want[caller]), want[caller].name,
                         describe(have[i].outputs.at(k), want[i].outputs[k]));
    }
    if (!want[i].layer.empty()) before = want[i].layer;
  }
  const std::string after = before.empty() ? "before the first layer with weights"
                                           : fmt::format("after layer `{}`", before);
  return problem.empty() ? after : fmt::format("{}: {}", after, problem);
}

class Evaluating {
 public:
  explicit Evaluating(models::Model& model) : model_(model), was_training_(model.is_training()) {
    model.train(false);
  }
  ~Evaluating() { model_.train(was_training_); }

 private:
  models::Model& model_;
  bool was_training_;
};

}  // namespace

Drawn draw(const data::Dataset& dataset, int64_t count) {
  data::Split split = data::Split::kTest;
  if (dataset.size(split) == 0) split = data::Split::kValidation;
  if (dataset.size(split) == 0) split = data::Split::kTrain;
  const int64_t size = dataset.size(split);
  if (size == 0) throw Error(Code::kData, "the data set has no samples to compare the artefact on");
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < count; ++i)
    samples.push_back(count <= size ? i * size / count : i % size);
  Batch batch = dataset.allocate(count);
  for (int64_t i = 0, left_out = 0; i < count; ++i) {
    dataset.fill(split, samples.data(), i, i + 1, /*augment=*/false, /*seed=*/0, /*epoch=*/0,
                 batch);
    if (batch.samples[i] != data::kLeftOut) continue;
    if (++left_out > size)
      throw Error(Code::kData, "no sample can be read to compare the artefact on");
    samples[i] = (samples[i] + 1) % size, --i;
  }
  Drawn drawn{dataset.raw(split, samples), batch.inputs, {}};
  for (int64_t sample : samples)
    drawn.names.push_back(fmt::format("sample {} of the {} split", sample, data::to_string(split)));
  return drawn;
}

Drawn draw_text(const data::Dataset& dataset, int64_t count, int64_t length) {
  Drawn drawn = draw(dataset, count);
  const int64_t context = drawn.inputs.size(1);
  drawn.inputs =
      drawn.inputs.repeat({1, (length + context - 1) / context}).slice(1, 0, length).contiguous();
  drawn.raw.tokens = drawn.inputs;
  return drawn;
}

std::vector<int64_t> verified_lengths(int64_t longest, int64_t vocabulary) {
  const int64_t most = std::max<int64_t>(16, kVerifiedLogits / std::max<int64_t>(1, vocabulary));
  auto at_most = [&](int64_t length) { return std::max<int64_t>(1, std::min(length, longest)); };
  return {at_most(most), at_most(7), at_most(2)};
}

at::Tensor evaluate(models::Model& model, const at::Tensor& inputs) {
  at::NoGradGuard no_grad;
  Evaluating evaluating(model);
  return model.forward(inputs);
}

std::string first_difference(const Script& script, models::Model& live, const at::Tensor& inputs) {
  const at::Tensor wanted = evaluate(live, inputs);
  for (int run = 0; run < kRuns; ++run) {
    try {
      if (!same_bytes(script.core(inputs), wanted)) return locate(script, live, inputs);
    } catch (const std::exception&) {  // the interpreter's are no c10::Error
      return locate(script, live, inputs);
    }
  }
  return "";
}

// [N]
static at::Tensor finite_rows(const at::Tensor& values) {
  return at::isfinite(values).reshape({values.size(0), -1}).all(1);
}

constexpr const char* kFiniteHint =
    "look at what training said of steps and evaluations; export.weights: last or an earlier "
    "checkpoint may be sound, and export.enabled: false ends a run without an artefact";

void require_finite(const models::Model& model, const std::string& where) {
  NamedTensors tensors = model.parameters();
  for (auto& buffer : model.buffers()) tensors.push_back(buffer);
  for (const auto& [name, tensor] : tensors)
    if (!at::isfinite(tensor).all().item<bool>())
      throw Error(Code::kNonFinite,
                  fmt::format("nothing was published: `{}` of the model is not finite", name),
                  where, kFiniteHint);
}

static void require_finite(const Drawn& drawn, const at::Tensor& outputs,
                           const std::string& where) {
  const at::Tensor bad =
      finite_rows(drawn.inputs).logical_and_(finite_rows(outputs).logical_not()).nonzero();
  if (bad.numel() > 0)
    throw Error(Code::kNonFinite,
                fmt::format("nothing was published: the model's output for {} is not finite",
                            drawn.names.at(static_cast<size_t>(bad[0].item<int64_t>()))),
                where, kFiniteHint);
}

void verify(const Script& script, models::Model& live, const data::Dataset& dataset,
            const std::string& loss, const std::string& where) {
  auto refuse = [&](const std::string& what, const std::string& hint) {
    return Error(Code::kCheckpoint, "nothing was published: " + what, where, hint);
  };
  require_finite(live, where);
  // weights first: the file must hold what was trained
  std::map<std::string, at::Tensor> held;
  for (const auto& [name, tensor] : script.tensors()) held[name] = tensor;
  NamedTensors weights = live.parameters();
  for (auto& buffer : live.buffers()) weights.push_back(buffer);
  for (const auto& [name, tensor] : weights) {
    auto found = held.find("model." + name);
    if (found == held.end() || !same_bytes(found->second, tensor.detach()))
      throw refuse(fmt::format("the tensor `{}` of the artefact is not the model's", name),
                   "export again");
  }
  const std::string hint =
      "use size-free operators and no branches on values in the model's forward (flatten, not "
      "view)";
  const bool is_text = dataset.info().is_text;
  std::vector<int64_t> lengths;
  if (is_text) {
    const auto& language = dynamic_cast<models::LanguageModel&>(live);
    lengths = verified_lengths(language.longest(), language.vocabulary());
  }
  for (size_t k = 0; k < std::size(kVerifiedBatches); ++k) {
    const int64_t count = kVerifiedBatches[k];
    const Drawn drawn = is_text ? draw_text(dataset, count, lengths[k]) : draw(dataset, count);
    const at::Tensor outputs = evaluate(live, drawn.inputs);
    require_finite(drawn, outputs, where);
    const std::vector<at::Tensor> wanted = answers(loss, outputs, is_text);
    if (const std::string difference = first_difference(script, live, drawn.inputs);
        !difference.empty())
      throw refuse(
          fmt::format("for a batch of {} the traced model first differs from the live one {}",
                      count, difference),
          hint);
    std::vector<at::Tensor> got;
    for (int run = 0; run < kRuns; ++run) {
      try {
        const at::Tensor inputs = script.preprocess(drawn.raw);
        if (!same_bytes(inputs, drawn.inputs))
          throw refuse(
              fmt::format(
                  "for a batch of {} the artefact's preprocessing differs from the data's: {}",
                  count, describe(inputs, drawn.inputs)),
              "compare the data source's preprocess source with its fill");
        got = script.forward(drawn.raw);
      } catch (const Error&) {
        throw;
      } catch (const std::exception& e) {
        throw refuse(fmt::format("for a batch of {} the artefact fails: {}", count, problem_of(e)),
                     hint);
      }
      for (size_t i = 0; i < wanted.size(); ++i)
        if (got.size() != wanted.size() || !same_bytes(got[i], wanted[i]))
          throw refuse(
              fmt::format(
                  "for a batch of {} the artefact's answer `{}` differs from the live model's: {}",
                  count, output_names(loss, is_text)[i], describe(got.at(i), wanted[i])),
              "see postprocess in engine/export/wrapper.cpp");
    }
  }
}

}  // namespace lehr::artefact
