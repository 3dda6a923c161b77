#include "engine/step/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

// One pattern of the recipe, and whether any parameter had such a name.
class Pattern {
 public:
  Pattern(const std::string& text, std::string key) : text_(text), key_(std::move(key)) {
    try {
      regex_ = std::regex(text, std::regex::ECMAScript);
    } catch (const std::regex_error&) {
      throw Error(Code::kRecipe, fmt::format("`{}` is no regular expression", text), key_,
                  "write one that matches names of parameters, such as `\\.bias$`");
    }
  }
  bool matches(const std::string& name) {
    bool found = std::regex_search(name, regex_);
    used_ |= found;
    return found;
  }
  void require_use(const NamedTensors& parameters) const {
    if (used_) return;
    StringList names;
    for (const auto& p : parameters) names.push_back(p.name);
    std::string near = nearest(text_, names);
    if (near.empty() && !names.empty()) near = names.front();
    throw Error(Code::kRecipe, fmt::format("the pattern `{}` matches no parameter", text_), key_,
                fmt::format("the model has {} parameters, such as `{}`", names.size(), near));
  }

 private:
  std::string text_, key_;
  std::regex regex_;
  bool used_ = false;
};

class Patterns {
 public:
  Patterns(const StringList& texts, const std::string& key) {
    for (const auto& text : texts) patterns_.emplace_back(text, key);
  }
  Patterns(const FloatMap& values, const std::string& key) {
    for (const auto& [text, value] : values) {
      if (!(value >= 0))
        throw Error(Code::kRecipe, fmt::format("{} for `{}` is below 0", value, text), key,
                    "write a number of at least 0");
      patterns_.emplace_back(text, key);
      values_.push_back(value);
    }
  }
  bool any(const std::string& name) { return first(name) >= 0; }
  double value(const std::string& name, double otherwise) {
    auto i = first(name);
    return i < 0 ? otherwise : values_[static_cast<size_t>(i)];
  }
  void require_use(const NamedTensors& parameters) const {
    for (const auto& pattern : patterns_) pattern.require_use(parameters);
  }

 private:
  // every pattern sees every name, so that one behind another still counts as used
  int first(const std::string& name) {
    int found = -1;
    for (size_t i = patterns_.size(); i-- > 0;)
      if (patterns_[i].matches(name)) found = static_cast<int>(i);
    return found;
  }
  std::vector<Pattern> patterns_;
  FloatList values_;
};

std::string with_commas(int64_t n) {
  std::string digits = std::to_string(n);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

std::string count(const NamedTensors& tensors) {
  int64_t numbers = 0;
  for (const auto& t : tensors) numbers += t.tensor.numel();
  return fmt::format("{} tensor{}, {} numbers", tensors.size(), tensors.size() == 1 ? "" : "s",
                     with_commas(numbers));
}

}  // namespace

double default_weight_decay(const OptimizerFields& fields) {
  return fields.weight_decay.value_or(fields.name == "adamw" ? 0.01 : 0.0);
}

Groups make_groups(const NamedTensors& parameters, const OptimizerFields& fields) {
  Patterns freeze(fields.freeze, "optimizer.freeze");
  Patterns no_decay(fields.no_decay.value_or(StringList{}), "optimizer.no_decay");
  Patterns factors(fields.lr_factors, "optimizer.lr_factors");
  Patterns decays(fields.weight_decays, "optimizer.weight_decays");
  const double decay = default_weight_decay(fields);

  Groups result;
  for (const auto& p : parameters) {
    bool spared = no_decay.any(p.name) || (!fields.no_decay && p.tensor.dim() < 2);
    double lr_factor = factors.value(p.name, 1);
    double weight_decay = decays.value(p.name, spared ? 0 : decay);
    if (freeze.any(p.name)) {
      result.frozen.push_back(p);
      continue;
    }
    auto same = std::find_if(result.groups.begin(), result.groups.end(), [&](const Group& g) {
      return g.lr_factor == lr_factor && g.weight_decay == weight_decay;
    });
    if (same == result.groups.end())
      same = result.groups.insert(same, Group{lr_factor, weight_decay, {}});
    same->parameters.push_back(p);
  }
  for (const auto* patterns : {&freeze, &no_decay, &factors, &decays})
    patterns->require_use(parameters);
  if (result.groups.empty())
    throw Error(Code::kRecipe, "every parameter is frozen, so there is nothing to train",
                "optimizer.freeze", "leave at least one parameter out of the patterns");
  return result;
}

std::string describe(const Groups& groups, const OptimizerFields& fields) {
  std::string text;
  for (const auto& g : groups.groups) {
    if (!text.empty()) text += "; ";
    if (g.weight_decay > 0)
      text += fmt::format("weight decay {}", g.weight_decay);
    else
      text += fields.no_decay || default_weight_decay(fields) == 0
                  ? "no weight decay"
                  : "no weight decay (norms and biases)";
    if (g.lr_factor != 1) text += fmt::format(", lr x {}", g.lr_factor);
    text += ": " + count(g.parameters);
  }
  if (!groups.frozen.empty()) text += "; frozen: " + count(groups.frozen);
  return text;
}

}  // namespace lehr::step
