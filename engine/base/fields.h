// How a room declares the recipe fields that it reads: name, type, default, range or choices, unit
// and one sentence, once. The recipe room parses, checks, completes and documents from this alone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lehr {

// A length of training: `500` (steps), `2ep`, `30min`, `10000samples`, `1e9tok`.
struct Duration {
  enum class Unit { kSteps, kEpochs, kSeconds, kSamples, kTokens };
  double value = 0;
  Unit unit = Unit::kSteps;
  bool operator==(const Duration&) const = default;
};
std::string to_string(const Duration& d);  // "500", "2ep", "1800s", "10000samples", "1e+09tok"
// Accepts ep|epochs, s|sec, min, h, d, samples, tok|tokens, step|steps or no unit. nullopt: not
// one.
std::optional<Duration> parse_duration(const std::string& text);

// The units that a field of durations takes.
using Units = std::vector<Duration::Unit>;
inline const Units kTime{Duration::Unit::kSeconds};
inline const Units kLengths{Duration::Unit::kSteps, Duration::Unit::kEpochs,
                            Duration::Unit::kSamples, Duration::Unit::kTokens};
inline const Units kLengthsOrTime{Duration::Unit::kSteps, Duration::Unit::kEpochs,
                                  Duration::Unit::kSamples, Duration::Unit::kTokens,
                                  Duration::Unit::kSeconds};

using DurationList = std::vector<Duration>;
using IntList = std::vector<int64_t>;
using FloatList = std::vector<double>;
using StringList = std::vector<std::string>;
using FloatMap = std::vector<std::pair<std::string, double>>;  // in the order of the file

// std::monostate: the field is absent (only for std::optional members), written `null` or left out.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string, Duration, IntList,
                           FloatList, StringList, FloatMap, DurationList>;

enum class FieldType {
  kBool,
  kInt,
  kFloat,
  kString,
  kPath,
  kDuration,
  kIntList,
  kFloatList,
  kStringList,
  kPathList,
  kFloatMap,
  kDurationList
};

// What a text that names a file or folder of ours may be.
enum class NameRule {
  kNone,   // any text
  kPlain,  // one name: no slash, no control character, no dot or dash at its start, 200 bytes
  kNested  // such names with slashes between them: exp/lr1e-3
};
// What `rule` has against `text`, "" for nothing.
std::string name_problem(const std::string& text, NameRule rule);

struct Field {
  std::string name;  // may be dotted: "augment.flip" is a nested mapping in the file
  FieldType type = FieldType::kString;
  Value default_value;
  bool nullable = false;  // the member is a std::optional
  bool is_required = false;
  std::optional<double> minimum, maximum;
  bool exclusive_minimum = false;
  StringList choice_list;
  std::string unit_name, text;
  Units unit_list;          // of durations: what they may be given in; every such field says it
  std::string unit_reason;  // why no other: "results would depend on the machine"
  NameRule name_rule = NameRule::kNone;
  StringList synonym_list;  // names other systems use: "learning_rate", "training.lr"
  StringList was_list;      // "section.name" under which earlier releases stored it
  bool exact = true;        // false: may change between save and resume without breaking exactness
  // the field exists only where `when_key` (of the same section) has one of `when_values`
  std::string when_key;
  StringList when_values;
  std::function<void(void* object, const Value&)> store;

  Field& range(double low, double high) {
    minimum = low, maximum = high;
    return *this;
  }
  Field& at_least(double low) {
    minimum = low;
    return *this;
  }
  Field& above(double low) {
    minimum = low, exclusive_minimum = true;
    return *this;
  }
  Field& choices(StringList list) {
    choice_list = std::move(list);
    return *this;
  }
  Field& unit(std::string name) {
    unit_name = std::move(name);
    return *this;
  }
  Field& units(Units list, std::string reason = "") {
    unit_list = std::move(list), unit_reason = std::move(reason);
    return *this;
  }
  Field& names(NameRule rule) {
    name_rule = rule;
    return *this;
  }
  // An earlier release called it so: recipes that it stored are read under the new name, files of
  // users are told it.
  Field& was(std::string key) {
    was_list.push_back(std::move(key));
    return *this;
  }
  Field& synonyms(StringList list) {
    synonym_list = std::move(list);
    return *this;
  }
  Field& required() {
    is_required = true;
    return *this;
  }
  Field& free_to_change() {
    exact = false;
    return *this;
  }
  Field& path() {
    type = type == FieldType::kStringList ? FieldType::kPathList : FieldType::kPath;
    return *this;
  }
  Field& when(std::string key, StringList values) {
    when_key = std::move(key), when_values = std::move(values);
    return *this;
  }
};

// Sections of the same name are merged (each model adds its own fields to `model`).
struct Section {
  std::string name, text;
  std::vector<Field> fields;
  // fields of earlier releases, with "since 0.2: ...": left out of recipes that those stored
  std::vector<std::pair<std::string, std::string>> gone_list;
};

namespace detail {
template <class T>
struct Unwrap {
  using type = T;
  static constexpr bool optional = false;
};
template <class T>
struct Unwrap<std::optional<T>> {
  using type = T;
  static constexpr bool optional = true;
};
FieldType field_type(const Value& sample);
}  // namespace detail

// Declares the members of a plain struct `T` as the fields of one section:
//   Declare<OptimizerFields> d("optimizer", "How the weights move.");
//   d.field("lr", &OptimizerFields::lr, "Step size after
//   warm-up.").above(0).synonyms({"learning_rate"}); return d.section();
// Defaults are those of a default-constructed T. Members: bool, int64_t, double, std::string,
// Duration, IntList, FloatList, StringList, FloatMap, DurationList, or std::optional of one of
// them.
template <class T>
class Declare {
 public:
  Declare(std::string name, std::string text) : section_{std::move(name), std::move(text), {}, {}} {
    section_.fields.reserve(64);  // field() hands out references
  }
  template <class M>
  Field& field(std::string name, M T::*member, std::string text) {
    using U = typename detail::Unwrap<M>::type;
    constexpr bool optional = detail::Unwrap<M>::optional;
    Field f;
    f.name = std::move(name);
    f.text = std::move(text);
    f.nullable = optional;
    f.type = detail::field_type(Value(U{}));
    const T defaults{};
    if constexpr (optional) {
      if (defaults.*member) f.default_value = *(defaults.*member);
    } else {
      f.default_value = defaults.*member;
    }
    f.store = [member](void* object, const Value& value) {
      M& target = static_cast<T*>(object)->*member;
      if constexpr (optional) {
        if (std::holds_alternative<std::monostate>(value)) {
          target.reset();
          return;
        }
      }
      target = std::get<U>(value);
    };
    section_.fields.push_back(std::move(f));
    return section_.fields.back();
  }
  // A field that there is no more; `since`: "since 0.2: what took its place".
  void gone(std::string name, std::string since) {
    section_.gone_list.emplace_back(std::move(name), std::move(since));
  }
  Section section() { return std::move(section_); }

 private:
  Section section_;
};

// Where a room gets its fields from: a recipe, or fixed values in a test.
//   auto fields = source.get<OptimizerFields>();   // OptimizerFields::section() declares them
class FieldSource {
 public:
  virtual ~FieldSource() = default;
  template <class T>
  T get() const {
    T object{};
    fill(T::section(), &object);
    return object;
  }

 protected:
  virtual void fill(const Section& section, void* object) const = 0;
};

// Defaults, and the given values by "section.field".
class FixedFields : public FieldSource {
 public:
  explicit FixedFields(std::vector<std::pair<std::string, Value>> values = {})
      : values_(std::move(values)) {}
  FixedFields& set(std::string key, Value value) {
    values_.emplace_back(std::move(key), std::move(value));
    return *this;
  }

 protected:
  void fill(const Section& section, void* object) const override;

 private:
  std::vector<std::pair<std::string, Value>> values_;
};

}  // namespace lehr
