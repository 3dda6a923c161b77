#include "engine/export/golden.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/host_bytes.h"
#include "engine/base/safetensors.h"

namespace lehr::artefact {
namespace {

using nlohmann::json;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Type {
  const char* name;
  at::ScalarType type;
};
constexpr Type kTypes[] = {
    {"U8", at::kByte}, {"F64", at::kDouble}, {"F32", at::kFloat}, {"I64", at::kLong}};

at::Tensor tensor_of(const TensorView& view) {
  for (const auto& known : kTypes)
    if (known.name == view.dtype) {
      at::Tensor tensor = at::empty(view.shape, known.type);
      if (view.bytes > 0) std::memcpy(tensor.data_ptr(), view.data, view.bytes);
      return tensor;
    }
  throw Error(Code::kCheckpoint, "golden samples of the dtype " + view.dtype, view.name);
}

// in units of the tolerance
double difference(const at::Tensor& got, const at::Tensor& wanted) {
  if (got.sizes() != wanted.sizes() || got.scalar_type() != wanted.scalar_type()) return kInfinity;
  if (got.numel() == 0 || at::equal(got, wanted)) return 0;
  at::Tensor g = got.to(at::kDouble), w = wanted.to(at::kDouble);
  at::Tensor share = (g - w).abs() / (kGoldenTolerance * (1 + w.abs()));
  share = at::where(at::isfinite(share), share,
                    at::where(at::isnan(g).logical_and(at::isnan(w)), 0.0, kInfinity));
  return share.max().item<double>();
}

}  // namespace

void write_golden(const std::string& path, const Golden& golden) {
  HostViews tensors;
  std::vector<TensorView> texts;
  const std::string strings = json(golden.inputs.strings).dump();
  int64_t count = 0;
  if (golden.inputs.images.defined()) {
    tensors.add({"input.images", golden.inputs.images});
    count = golden.inputs.images.size(0);
  } else if (golden.inputs.tokens.defined()) {
    tensors.add({"input.tokens", golden.inputs.tokens});
    count = golden.inputs.tokens.size(0);
  } else {
    tensors.add({"input.numbers", golden.inputs.numbers});
    texts.push_back(
        {"input.strings", "U8", {int64_t(strings.size())}, strings.data(), strings.size()});
    count = golden.inputs.numbers.size(0);
  }
  for (size_t i = 0; i < golden.outputs.size(); ++i)
    tensors.add({"output." + golden.output_names[i], golden.outputs[i]});
  std::vector<TensorView> views = tensors.views();
  views.insert(views.end(), texts.begin(), texts.end());
  write_safetensors(path, in_file_order(views),
                    {{"samples", std::to_string(count)},
                     {"atol", fmt::format("{}", kGoldenTolerance)},
                     {"rtol", fmt::format("{}", kGoldenTolerance)},
                     {"outputs", fmt::format("{}", fmt::join(golden.output_names, ","))}});
}

Golden read_golden(const std::string& path) {
  SafetensorsFile file(path);
  auto damaged = [&](const std::string& why) {
    return Error(Code::kCheckpoint, why, path, "export the model again");
  };
  Golden golden;
  if (const auto* images = file.find("input.images")) {
    golden.inputs.images = tensor_of(*images);
  } else if (const auto* tokens = file.find("input.tokens")) {
    golden.inputs.tokens = tensor_of(*tokens);
  } else {
    const auto *numbers = file.find("input.numbers"), *strings = file.find("input.strings");
    if (!numbers || !strings) throw damaged("golden samples without inputs");
    golden.inputs.numbers = tensor_of(*numbers);
    const auto rows =
        json::parse(static_cast<const char*>(strings->data),
                    static_cast<const char*>(strings->data) + strings->bytes, nullptr, false);
    try {
      golden.inputs.strings = rows.get<std::vector<std::vector<std::string>>>();
    } catch (const json::exception&) {
      throw damaged("input.strings is not JSON of rows of strings");
    }
  }
  auto outputs = file.metadata().find("outputs");
  if (outputs == file.metadata().end()) throw damaged("golden samples without outputs");
  for (const char* name : {"label", "probability", "value", "logits"})
    if (const auto* view = file.find(std::string("output.") + name)) {
      golden.output_names.push_back(name);
      golden.outputs.push_back(tensor_of(*view));
    }
  if (golden.outputs.empty()) throw damaged("golden samples without outputs");
  return golden;
}

namespace {

double compare(const std::vector<at::Tensor>& got, const Golden& golden) {
  if (got.size() != golden.outputs.size()) return kInfinity;
  if (got.size() == 1) return difference(got[0], golden.outputs[0]);
  // (label, probability): near a tie another machine may take the other label
  const at::Tensor &labels = golden.outputs[0], &probabilities = golden.outputs[1];
  double worst = difference(got[1], probabilities);
  if (got[0].sizes() != labels.sizes() || got[0].scalar_type() != at::kLong) return kInfinity;
  if (at::equal(got[0], labels)) return worst;
  const bool in_range =
      got[0].ge(0).logical_and(got[0].lt(probabilities.size(1))).all().item<bool>();
  if (!in_range) return kInfinity;
  return std::max(worst, difference(probabilities.gather(1, got[0].unsqueeze(1)),
                                    probabilities.gather(1, labels.unsqueeze(1))));
}

}  // namespace

double replay(const Script& script, const Golden& golden) {
  try {
    return compare(script.forward(golden.inputs), golden);
  } catch (const std::exception&) {  // inputs that it refuses are not answered
    return kInfinity;
  }
}

}  // namespace lehr::artefact
