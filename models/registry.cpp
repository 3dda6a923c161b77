// Every model by name. A new one adds its function to the two lists here.
#include "engine/base/error.h"
#include "models/model.h"

namespace lehr::models {

ModelEntry logistic_model();
ModelEntry mlp_model();
ModelEntry cnn_model();
ModelEntry resnet_model();
ModelEntry gpt2_model();
ModelEntry llama_model();

const std::vector<ModelEntry>& registry() {
  static const std::vector<ModelEntry> entries = {logistic_model(), mlp_model(),  cnn_model(),
                                                  resnet_model(),   gpt2_model(), llama_model()};
  return entries;
}

static StringList names() {
  StringList list;
  for (const auto& entry : registry()) list.push_back(entry.name);
  return list;
}

Section ModelFields::section() {
  std::string text = "What the model computes:";
  for (const auto& entry : registry())
    text +=
        fmt::format("{} {} ({})", &entry == &registry().front() ? "" : ",", entry.name, entry.text);
  Declare<ModelFields> d("model", "What computes outputs from inputs.");
  d.field("name", &ModelFields::name, text + ".")
      .choices(names())
      .synonyms({"type", "arch", "architecture"});
  d.field("init_from", &ModelFields::init_from,
          "Run folder, checkpoint or .safetensors file whose weights to start from; \"\" for fresh "
          "ones.")
      .path()
      .synonyms({"base_model", "initial_load_path"});
  d.field(
       "pretrained", &ModelFields::pretrained,
       "Hugging Face folder (config.json, safetensors) whose weights to start from, for gpt2 and "
       "llama; the recipe's model must be the one in it. \"\": none.")
      .path()
      .synonyms({"model_name_or_path", "pretrained_model_name_or_path"});
  return d.section();
}

std::shared_ptr<Model> make_model(const FieldSource& fields, const ModelContext& context) {
  const std::string name = fields.get<ModelFields>().name;
  const bool is_image = context.channels > 0, is_text = context.vocabulary > 0;
  auto takes = [&](const ModelEntry& e) {
    return is_text ? e.takes_text : is_image ? e.takes_images : e.takes_tables;
  };
  for (const auto& entry : registry()) {
    if (entry.name != name) continue;
    if (takes(entry)) return entry.make(fields, context);
    StringList fitting;
    for (const auto& other : registry())
      if (takes(other)) fitting.push_back(other.name);
    throw Error(Code::kRecipe,
                fmt::format("model `{}` does not take {}", name,
                            is_text    ? "text"
                            : is_image ? "images"
                                       : "tables"),
                "model.name", fmt::format("choose one of {}", fmt::join(fitting, ", ")));
  }
  const std::string near = nearest(name, names());
  throw Error(Code::kRecipe, fmt::format("there is no model `{}`", name), "model.name",
              near.empty() ? fmt::format("write one of {}", fmt::join(names(), ", "))
                           : fmt::format("did you mean {}?", near));
}

}  // namespace lehr::models
