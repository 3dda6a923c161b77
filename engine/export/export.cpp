// Publishing: everything is written under a temporary name, compared with the live model from what
// lies on the disk, and only then renamed into place.
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/device.h"
#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/host_bytes.h"
#include "engine/base/safetensors.h"
#include "engine/export/artefact.h"
#include "engine/export/golden.h"
#include "engine/export/layout.h"
#include "engine/export/manifest.h"
#include "engine/export/publish.h"
#include "engine/export/scan.h"
#include "engine/export/trace.h"
#include "engine/export/verify.h"
#include "engine/export/wrapper.h"

namespace lehr::artefact {
namespace {

using Json = nlohmann::ordered_json;

Json tensor_json(const std::string& name, const at::Tensor& example) {
  Json shape = {"N"};
  for (int64_t d = 1; d < example.dim(); ++d) shape.push_back(example.size(d));
  if (name == "tokens" || name == "logits") shape[1] = "T";
  const char* dtype = example.scalar_type() == at::kByte     ? "uint8"
                      : example.scalar_type() == at::kDouble ? "float64"
                      : example.scalar_type() == at::kLong   ? "int64"
                                                             : "float32";
  return {{"name", name}, {"dtype", dtype}, {"shape", shape}};
}

// what forward takes and returns, read off a real call
Json signature_json(const Golden& golden, const data::DataInfo& info) {
  Json inputs = Json::array(), outputs = Json::array();
  if (info.is_image) {
    inputs.push_back(tensor_json("images", golden.inputs.images));
  } else if (info.is_text) {
    inputs.push_back(tensor_json("tokens", golden.inputs.tokens));
  } else {
    inputs.push_back(tensor_json("numbers", golden.inputs.numbers));
    inputs.push_back({{"name", "strings"},
                      {"dtype", "List[List[str]]"},
                      {"shape", {"N", info.string_columns.size()}}});
  }
  for (size_t i = 0; i < golden.outputs.size(); ++i)
    outputs.push_back(tensor_json(golden.output_names[i], golden.outputs[i]));
  return {{"inputs", inputs}, {"outputs", outputs}};
}

NamedTensors weights_of(const models::Model& model) {
  NamedTensors all = model.parameters();
  for (auto& buffer : model.buffers()) all.push_back(buffer);
  return all;
}

void write_weights(const std::string& path, const models::Model& model) {
  const HostViews weights(weights_of(model));
  // "pt" is what Python's safetensors expects of weights for PyTorch
  write_safetensors(path, in_file_order(weights.views()), {{"format", "pt"}});
}

// fills `folder` and proves that what lies there is the model
void write_and_prove(const ExportRequest& request, const std::string& folder) {
  const data::DataInfo& info = request.dataset->info();
  models::Model& model = *request.model;
  const bool is_triton = request.layout == "triton";

  // model.pt: traced, wrapped, saved, loaded again from the disk
  const auto* language = dynamic_cast<const models::LanguageModel*>(&model);
  const Script core = trace(model, draw(*request.dataset, 2).inputs);
  LanguageFacts of_language;
  if (language)
    of_language = {language->longest(), language->vocabulary(),
                   token_mask(info.tokenizer, language->vocabulary())};
  const Script whole =
      wrap(core, surroundings(info, request.dataset->preprocessing(), request.loss, of_language));
  const std::string model_path = join_path(folder, is_triton ? kTritonModelName : kModelName);
  if (is_triton) make_folders(std::filesystem::path(model_path).parent_path().string());
  {
    FileWriter file(model_path);
    whole.save([&](const void* data, size_t n) { file.write(data, n); });
    file.commit();
  }
  const Script script = [&] {
    const std::string archive = read_file(model_path);
    scan_archive(archive, model_path);
    return load_script(archive);
  }();
  scan_operators(script.operators(), model_path);
  verify(script, model, *request.dataset, request.loss, request.output);

  // golden samples hold the live model's answers, not the script's
  Golden golden;
  const int64_t samples = info.is_text ? kGoldenTexts : kGoldenSamples;
  const Drawn drawn =
      info.is_text ? draw_text(*request.dataset, samples, std::min(kGoldenTokens, info.context))
                   : draw(*request.dataset, samples);
  golden.inputs = drawn.raw;
  golden.output_names = output_names(request.loss, info.is_text);
  golden.outputs = answers(request.loss, evaluate(model, drawn.inputs), info.is_text);
  write_golden(join_path(folder, kGoldenName), golden);
  if (replay(script, read_golden(join_path(folder, kGoldenName))) != 0)
    throw Error(Code::kCheckpoint,
                "nothing was published: the golden samples are not answered alike", request.output);

  write_weights(join_path(folder, kWeightsName), model);
  write_bytes(join_path(folder, kRecipeName), request.recipe_yaml);
  write_bytes(join_path(folder, kMetricsName), request.metrics_json);
  write_bytes(join_path(folder, kStatisticsName), request.dataset->statistics());
  if (!info.tokenizer.empty()) write_bytes(join_path(folder, kTokenizerName), info.tokenizer);
  const Json signature = signature_json(golden, info);
  if (is_triton)
    write_bytes(join_path(folder, kTritonConfigName),
                triton_config(request.output, signature.dump()));

  int64_t parameters = 0;
  for (const auto& [name, tensor] : model.parameters()) parameters += tensor.numel();
  Json origin =
      Json::parse(request.origin_json.empty() ? "{}" : request.origin_json, nullptr, false);
  if (!origin.is_object())
    throw Error(Code::kInternal, "the origin of an artefact is no JSON object");
  const char* task = info.is_text                       ? "language model"
                     : answer_of(request.loss).is_class ? "classification"
                                                        : "regression";
  Json facts = {{"task", task},
                {"loss", request.loss},
                {"classes", info.classes},
                {"number_columns", info.number_columns},
                {"string_columns", info.string_columns},
                {"signature", signature},
                {"parameters", parameters},
                {"layout", request.layout},
                {"verified",
                 {{"batch_sizes", kVerifiedBatches},
                  {"golden_samples", samples},
                  {"device", "cpu"},
                  {"cpu_capability", at::get_cpu_capability()}}},
                {"libtorch", libtorch_version()},
                {"build", build_stamp()},
                {"operators", script.operators()},
                {"origin", origin}};
  if (info.is_text) {
    facts["context"] = info.context;
    facts["vocabulary"] = language->vocabulary();
    if (info.layout)
      facts["documents"] = {{"separator", info.layout->separator}, {"ends", info.layout->ends}};
    facts["verified"]["lengths"] = verified_lengths(language->longest(), language->vocabulary());
  }
  if (is_triton) sync_folder(std::filesystem::path(model_path).parent_path().string());
  write_file_durably(join_path(folder, kManifestName), to_text({facts.dump(), records_of(folder)}));
}

}  // namespace

void export_artefact(const ExportRequest& request) {
  publish_folder(request.output, [&](const std::string& folder) {
    if (request.layout == "triton" && !request.dataset->info().is_image)
      throw Error(Code::kRecipe, "only models of images can be laid out for Triton",
                  "export.layout", "set export.layout: plain");
    write_and_prove(request, folder);
  });
}

bool exports(const std::shared_ptr<models::Model>& model, const data::DataInfo& info,
             std::string* why) {
  std::vector<int64_t> lengths;  // of a batch of 1, 2, 3
  if (const auto* language = dynamic_cast<const models::LanguageModel*>(model.get()))
    lengths = {std::min<int64_t>(language->longest(), 64),
               std::min<int64_t>(language->longest(), 3),
               std::min<int64_t>(language->longest(), 7)};
  auto inputs = [&](int64_t count) {
    if (info.is_text)
      return at::randint(info.vocabulary, {count, lengths.at(count - 1)}, at::kLong);
    if (!info.is_image) return at::randn({count, info.features});
    return at::randn({count, info.channels, info.height, info.width})
        .contiguous(at::MemoryFormat::ChannelsLast);
  };
  std::string problem;
  try {
    const Script core = trace(*model, inputs(2));
    for (const auto& kind : core.operators())
      if (problem.empty() && !operator_allowed(kind))
        problem = fmt::format(
            "it uses the operator {}, which stock PyTorch lacks or an artefact may not hold", kind);
    for (int64_t count : {1, 3})
      if (problem.empty())
        if (std::string place = first_difference(core, *model, inputs(count)); !place.empty())
          problem =
              fmt::format("for a batch of {} its trace first differs from it {}", count, place);
  } catch (const std::exception& e) {
    problem = e.what();
  }
  if (why) *why = problem;
  return problem.empty();
}

}  // namespace lehr::artefact
