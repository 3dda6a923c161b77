#include "engine/export/wrapper.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "engine/base/error.h"
#include "engine/export/checks.h"

namespace lehr::artefact {
namespace {

at::Tensor softmax_scores(const at::Tensor& outputs) { return at::softmax(outputs, 1, at::kFloat); }
at::Tensor logistic_scores(const at::Tensor& outputs) {
  at::Tensor logit = outputs.to(at::kFloat);  // [N, 1]
  return at::sigmoid(at::cat({-logit, logit}, 1));
}
at::Tensor values(const at::Tensor& outputs) { return outputs.to(at::kFloat); }

constexpr char kSoftmax[] = R"(
def postprocess(self, outputs: Tensor) -> Tuple[Tensor, Tensor]:
    probability = torch.softmax(outputs, 1, torch.float32)
    return torch.argmax(probability, 1), probability
)";
constexpr char kLogistic[] = R"(
def postprocess(self, outputs: Tensor) -> Tuple[Tensor, Tensor]:
    logit = outputs.to(torch.float32)
    probability = torch.sigmoid(torch.cat([-logit, logit], 1))
    return torch.argmax(probability, 1), probability
)";
constexpr char kValues[] = R"(
def postprocess(self, outputs: Tensor) -> Tuple[Tensor]:
    return (outputs.to(torch.float32),)
)";

constexpr Answer kAnswers[] = {{"cross_entropy", true, kSoftmax, softmax_scores},
                               {"binary_cross_entropy", true, kLogistic, logistic_scores},
                               {"mse", false, kValues, values},
                               {"mae", false, kValues, values},
                               {"huber", false, kValues, values}};
constexpr Answer kTextAnswers[] = {{"cross_entropy", false, kValues, values}};

}  // namespace

const Answer& answer_of(const std::string& loss, bool is_text) {
  if (is_text) {
    for (const auto& answer : kTextAnswers)
      if (loss == answer.loss) return answer;
  }
  for (const auto& answer : kAnswers)
    if (!is_text && loss == answer.loss) return answer;
  throw Error(Code::kInternal, fmt::format("no answer is declared for the loss `{}`", loss),
              "loss.name", "add its row to engine/export/wrapper.cpp");
}

Surroundings surroundings(const data::DataInfo& info, const data::Preprocessing& preprocessing,
                          const std::string& loss, const LanguageFacts& language) {
  const Answer& answer = answer_of(loss, info.is_text);
  Surroundings out;
  if (language.token_mask.defined()) out.buffers.push_back({"token_mask", language.token_mask});
  for (const auto& [name, tensor] : preprocessing.buffers) out.buffers.push_back({name, tensor});
  out.string_lists = preprocessing.string_lists;
  out.string_maps = preprocessing.string_maps;
  out.string_lists.emplace_back("classes", info.classes);
  out.string_lists.emplace_back("number_columns", info.number_columns);
  out.string_lists.emplace_back("string_columns", info.string_columns);
  out.source = check_source(info, language.longest, language.vocabulary) + preprocessing.source +
               answer.source;
  const char* result = answer.is_class ? "Tuple[Tensor, Tensor]" : "Tuple[Tensor]";
  if (info.is_image) {
    // training runs channels-last, and a convolution's bits follow the memory format
    out.source += fmt::format(R"(
def forward(self, images: Tensor) -> {}:
    self.lehr_check(images)
    x = self.preprocess(images).contiguous(memory_format=torch.channels_last)
    return self.postprocess(self.model.forward(x))
)",
                              result);
  } else if (info.is_text) {
    out.integers.emplace_back("context", info.context);
    out.source += fmt::format(R"(
def forward(self, tokens: Tensor) -> {}:
    self.lehr_check(tokens)
    self.lehr_check_length(tokens)
    if tokens.size(0) == 0:
        return (torch.zeros([0, tokens.size(1), {}], dtype=torch.float32, device=tokens.device),)
    return self.postprocess(self.model.forward(self.preprocess(tokens)))
)",
                              result, language.vocabulary);
    out.source += generate_source(language.token_mask.defined());
  } else {
    out.source += fmt::format(R"(
def forward(self, numbers: Tensor, strings: List[List[str]]) -> {}:
    self.lehr_check(numbers, strings)
    x = self.preprocess(numbers, strings)
    self.lehr_check_features(numbers, x)
    return self.postprocess(self.model.forward(x))
)",
                              result);
  }
  return out;
}

std::vector<at::Tensor> answers(const std::string& loss, const at::Tensor& outputs, bool is_text) {
  const Answer& answer = answer_of(loss, is_text);
  at::Tensor scores = answer.scores(outputs);
  if (!answer.is_class) return {scores};
  return {at::argmax(scores, 1), scores};
}

std::vector<std::string> input_names(const data::DataInfo& info) {
  if (info.is_image) return {"images"};
  if (info.is_text) return {"tokens"};
  return {"numbers", "strings"};
}

std::vector<std::string> output_names(const std::string& loss, bool is_text) {
  if (is_text) return {"logits"};
  if (answer_of(loss).is_class) return {"label", "probability"};
  return {"value"};
}

}  // namespace lehr::artefact
