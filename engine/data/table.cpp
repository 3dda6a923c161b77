// Typed tables from CSV: numbers standardised, categories one-hot, both fitted on training rows.
// Rows stay compact in memory (a double per number, a code per category) and widen in fill().
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "engine/base/error.h"
#include "engine/data/columns.h"
#include "engine/data/images.h"

namespace lehr::data {
namespace {

using Json = nlohmann::ordered_json;

// More one-hot features make no table of categories.
constexpr int64_t kMostFeatures = 100'000;
// Columns that get a line each.
constexpr size_t kMostLines = 40;

struct Number {
  double mean = 0, std = 1, minimum = 0, maximum = 0;  // std: 0 of a constant
  int64_t count = 0, missing = 0;
};

// mean and standard deviation of the values that are there, in row order; T: of the sums
template <class T, class At>
void measure_as(const std::vector<int64_t>& rows, At at, Number& n) {
  T sum = 0, squares = 0;
  for (int64_t row : rows)
    if (const double v = at(row); !std::isnan(v)) sum += v;
  const T mean = sum / static_cast<T>(n.count);
  n.mean = static_cast<double>(mean);
  for (int64_t row : rows)
    if (const double v = at(row); !std::isnan(v)) {
      const T difference = v - n.mean;
      squares += difference * difference;
    }
  n.std = static_cast<double>(std::sqrt(squares / static_cast<T>(n.count)));
}

template <class At>
Number measure(const std::vector<int64_t>& rows, At at) {
  Number n;
  n.minimum = std::numeric_limits<double>::infinity(), n.maximum = -n.minimum;
  for (int64_t row : rows) {
    const double v = at(row);
    if (std::isnan(v)) {
      ++n.missing;
      continue;
    }
    ++n.count;
    n.minimum = std::min(n.minimum, v), n.maximum = std::max(n.maximum, v);
  }
  if (n.count == 0) return {0, 1, 0, 0, 0, n.missing};
  if (n.minimum == n.maximum) {
    n.mean = n.minimum, n.std = 0;
    return n;
  }
  measure_as<double>(rows, at, n);
  // squares of such values leave the range of a double
  if (!std::isfinite(n.mean) || !std::isfinite(n.std) || n.std == 0)
    measure_as<long double>(rows, at, n);
  // what is left of rounding the mean (scikit-learn's _is_constant_feature)
  const double noise =
      static_cast<double>(n.count) * std::numeric_limits<double>::epsilon() * std::abs(n.mean);
  if (n.std <= noise) n.std = 0;
  return n;
}

Json to_json(const Number& n) {
  return {{"mean", n.mean},   {"std", n.std},     {"min", n.minimum},
          {"max", n.maximum}, {"count", n.count}, {"missing", n.missing}};
}

class Table : public Dataset {
 public:
  explicit Table(const FieldSource& source);
  const DataInfo& info() const override { return info_; }
  int64_t size(Split split) const override { return static_cast<int64_t>(at(split).index.size()); }
  Batch allocate(int64_t size) const override;
  void fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool augment,
            uint64_t seed, int64_t epoch, Batch& batch) const override;
  RawBatch raw(Split split, const std::vector<int64_t>& samples) const override;
  Preprocessing preprocessing() const override;
  std::string statistics() const override { return statistics_; }
  StringList remarks() const override { return remarks_; }

 private:
  struct Part {
    std::shared_ptr<const TableRows> table;
    std::vector<int64_t> index;  // rows of `table` that are in this set
  };
  const Part& at(Split split) const { return parts_[static_cast<int>(split)]; }
  void fit(const std::string& path);
  void remark_number(int64_t column);
  void remark_unseen(Split split);

  DataInfo info_;
  Part parts_[3];
  std::vector<Dictionary> dictionaries_;  // of each string column, over all files
  std::vector<Number> numbers_;           // of each number column, training rows
  std::vector<int64_t> indicators_;       // number columns with a missing-value feature
  std::vector<std::vector<int32_t>>
      slots_;  // feature of [string column][code]; -1: unseen in training
  std::map<std::string, int64_t>
      categories_;  // "column:value" -> feature, counted from the first category
  int64_t first_category_ = 0;
  std::string statistics_;
  StringList remarks_;
};

// class names in their order: numbers by value, texts by byte
StringList sorted_classes(StringList names) {
  const bool numbers = std::all_of(names.begin(), names.end(), [](const std::string& name) {
    char* end = nullptr;
    std::strtod(name.c_str(), &end);
    return !name.empty() && *end == 0;
  });
  std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    if (!numbers) return a < b;
    const double x = std::strtod(a.c_str(), nullptr), y = std::strtod(b.c_str(), nullptr);
    if (std::isnan(x) != std::isnan(y)) return std::isnan(y);  // `nan` is a class too, the last one
    return x < y || (!(y < x) && a < b);
  });
  return names;
}

Table::Table(const FieldSource& source) {
  const auto common = source.get<DataFields>();
  const auto files = source.get<FileFields>();
  auto fields = source.get<TableFields>();
  if (files.train_file.empty())
    throw Error(Code::kRecipe, "no training table is given", "data.train_file");
  if (fields.target.empty())
    throw Error(Code::kRecipe, "the column to predict is not given", "data.target");
  const char delimiter = parse_delimiter(fields.delimiter);
  const std::string hint = missing_hint(common.name);
  if (!common.classes.empty() && fields.task == "auto") fields.task = "classification";

  const Bytes train = read_bytes(files.train_file, hint);
  auto [columns, guessed] = choose_columns(train, delimiter, fields);
  if (columns.numbers.empty() && columns.strings.empty())
    throw Error(Code::kRecipe, "no input columns are left", "data.ignore_columns");
  info_.number_columns = columns.numbers;
  info_.string_columns = columns.strings;

  Dictionary classes;
  for (const auto& name : common.classes) classes.code(name);
  auto rows = std::make_shared<TableRows>(
      read_table(train, delimiter, columns, dictionaries_, classes, common.classes.empty()));
  if (rows->rows == 0)
    throw Error(Code::kData, "there are no rows after the header", files.train_file);
  if (columns.target_is_class) {
    info_.classes = common.classes.empty() ? sorted_classes(classes.texts()) : common.classes;
    Dictionary ordered;
    for (const auto& name : info_.classes) ordered.code(name);
    for (int64_t& label : rows->labels) label = ordered.find(classes.texts()[label]);
    classes = std::move(ordered);
  } else {
    info_.values = 1;
  }

  std::vector<std::string> hashes = {train.hash};
  auto read_other = [&](Split split, const std::string& path) {
    const Bytes file = read_bytes(path, hint);
    hashes.push_back(file.hash);
    auto table = std::make_shared<TableRows>(
        read_table(file, delimiter, columns, dictionaries_, classes, false));
    Part& part = parts_[static_cast<int>(split)];
    part.index.resize(table->rows);
    std::iota(part.index.begin(), part.index.end(), 0);
    part.table = std::move(table);
  };
  // the test set is taken out first, by draws of its own; validation comes out of what remains
  Part& training = parts_[0];
  training.table = rows;
  training.index.resize(rows->rows);
  std::iota(training.index.begin(), training.index.end(), 0);
  auto take_out = [&](Split split, double fraction, uint64_t seed, const char* field) {
    const std::vector<uint64_t> ids(training.index.begin(), training.index.end());
    auto [kept, held] = hold_out(static_cast<int64_t>(ids.size()), ids, fraction, seed, field);
    Part& part = parts_[static_cast<int>(split)];
    part.table = rows;
    for (int64_t i : held) part.index.push_back(training.index[i]);
    std::vector<int64_t> rest;
    for (int64_t i : kept) rest.push_back(training.index[i]);
    training.index = std::move(rest);
  };
  const uint64_t seed = common.split_seed;
  if (!files.test_file.empty())
    read_other(Split::kTest, files.test_file);
  else
    take_out(Split::kTest, fields.test_fraction, mix64(seed), "data.test_fraction");
  if (!files.validation_file.empty())
    read_other(Split::kValidation, files.validation_file);
  else
    take_out(Split::kValidation, common.validation_fraction, seed, "data.validation_fraction");
  info_.fingerprint = fingerprint_of(hashes);
  fit(files.train_file);
  for (auto& line : guessed) remarks_.push_back(std::move(line));
  for (Split split : {Split::kValidation, Split::kTest}) remark_unseen(split);
}

void Table::fit(const std::string& path) {
  const auto& train = parts_[0];
  const int64_t columns = info_.number_columns.size(), strings = info_.string_columns.size();
  Json json{{"kind", "table"},
            {"samples",
             {{"train", size(Split::kTrain)},
              {"validation", size(Split::kValidation)},
              {"test", size(Split::kTest)}}},
            {"numbers", Json::object()},
            {"strings", Json::object()}};
  for (int64_t f = 0; f < columns; ++f) {
    numbers_.push_back(
        measure(train.index, [&](int64_t row) { return train.table->numbers[row * columns + f]; }));
    json["numbers"][info_.number_columns[f]] = to_json(numbers_.back());
    Number& n = numbers_.back();
    if (!std::isfinite(n.maximum - n.minimum) || !std::isfinite(n.std))
      throw Error(Code::kData,
                  fmt::format("column '{}' holds values from {} to {}, which no float64 can be "
                              "standardised by",
                              info_.number_columns[f], n.minimum, n.maximum),
                  path, "Scale it down, or leave it out: data.ignore_columns.");
    remark_number(f);
    if (n.std == 0) n.std = 1;  // of a constant column the difference is kept
    if (n.missing > 0) indicators_.push_back(f);
  }
  first_category_ = columns + static_cast<int64_t>(indicators_.size());
  int64_t feature = 0;
  for (int64_t s = 0; s < strings; ++s) {
    const StringList& texts = dictionaries_[s].texts();
    std::map<std::string, std::pair<int64_t, int32_t>> seen;  // text -> count, code; sorted
    for (int64_t row : train.index) {
      const int32_t code = train.table->codes[row * strings + s];
      auto& entry = seen[texts[code]];
      ++entry.first, entry.second = code;
    }
    const int64_t features = feature + static_cast<int64_t>(seen.size());
    if (features > kMostFeatures)
      throw Error(
          Code::kData,
          fmt::format("column '{}' has {} different values, and {} features in all are more "
                      "than {}",
                      info_.string_columns[s], seen.size(), features, kMostFeatures),
          path,
          "Leave out what tells rows apart (data.ignore_columns), or name it in "
          "data.number_columns if it holds numbers.");
    slots_.emplace_back(texts.size(), -1);
    Json counts = Json::object();
    for (const auto& [text, entry] : seen) {
      counts[text] = entry.first;
      slots_[s][entry.second] = static_cast<int32_t>(feature);
      categories_[fmt::format("{}:{}", s, text)] = feature++;
    }
    json["strings"][info_.string_columns[s]] = counts;
    remarks_.push_back(fmt::format("column '{}': categories, {} different values",
                                   info_.string_columns[s], seen.size()));
  }
  if (remarks_.size() > kMostLines) {
    const size_t more = remarks_.size() - kMostLines;
    remarks_.resize(kMostLines);
    remarks_.push_back(fmt::format("{} more columns", more));
  }
  info_.features = first_category_ + feature;
  if (info_.classes.empty()) {
    json["target"] =
        to_json(measure(train.index, [&](int64_t row) { return train.table->values[row]; }));
  } else {
    std::vector<int64_t> counts(info_.classes.size());
    for (int64_t row : train.index) ++counts[train.table->labels[row]];
    json["classes"] = Json::object();
    for (size_t c = 0; c < counts.size(); ++c) json["classes"][info_.classes[c]] = counts[c];
  }
  statistics_ = json.dump(2);
}

void Table::remark_number(int64_t column) {
  const Number& n = numbers_[column];
  std::string line =
      fmt::format("column '{}': numbers, {} values", info_.number_columns[column], n.count);
  if (n.missing > 0) line += fmt::format(", {} missing", n.missing);
  if (n.std == 0 && n.count > 0) line += fmt::format(", constant ({})", n.mean);
  if (const int64_t rounded = parts_[0].table->rounded[column]; rounded > 0)
    line += fmt::format(", {} whole numbers beyond 2^53 are rounded", rounded);
  remarks_.push_back(std::move(line));
}

// Categories that training has not set nothing in a row.
void Table::remark_unseen(Split split) {
  const Part& part = at(split);
  const auto strings = static_cast<int64_t>(info_.string_columns.size());
  for (int64_t s = 0; s < strings; ++s) {
    int64_t unseen = 0;
    std::string first;
    for (int64_t row : part.index) {
      const int32_t code = part.table->codes[row * strings + s];
      if (slots_[s][code] >= 0) continue;
      if (unseen++ == 0) first = dictionaries_[s].texts()[code];
    }
    if (is_share_of_unseen(unseen, static_cast<int64_t>(part.index.size())))
      remarks_.push_back(fmt::format(
          "{}: {} of {} rows have a value of '{}' that training has not: {}", to_string(split),
          unseen, part.index.size(), info_.string_columns[s], cell_text(first)));
  }
}

Batch Table::allocate(int64_t size) const {
  Batch batch;
  batch.inputs = at::empty({size, info_.features}, at::kFloat);
  batch.targets =
      info_.classes.empty() ? at::empty({size, 1}, at::kFloat) : at::empty({size}, at::kLong);
  batch.samples.resize(size);
  return batch;
}

void Table::fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool, uint64_t,
                 int64_t, Batch& batch) const {
  TORCH_CHECK(
      batch.inputs.is_contiguous() && batch.targets.is_contiguous() && batch.inputs.size(0) >= end,
      "fill: the batch is not one that allocate() made");
  const Part& part = at(split);
  const TableRows& table = *part.table;
  const int64_t columns = info_.number_columns.size(), strings = info_.string_columns.size();
  float* inputs = batch.inputs.data_ptr<float>();
  float* values = info_.classes.empty() ? batch.targets.data_ptr<float>() : nullptr;
  int64_t* labels = values ? nullptr : batch.targets.data_ptr<int64_t>();
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = part.index[samples[i]];
    float* out = inputs + i * info_.features;
    const double* in = table.numbers.data() + row * columns;
    for (int64_t f = 0; f < columns; ++f)
      *out++ = std::isnan(in[f]) ? 0.0f
                                 : static_cast<float>((in[f] - numbers_[f].mean) / numbers_[f].std);
    for (int64_t f : indicators_) *out++ = std::isnan(in[f]) ? 1.0f : 0.0f;
    std::fill(out, inputs + (i + 1) * info_.features, 0.0f);
    for (int64_t s = 0; s < strings; ++s)
      if (const int32_t slot = slots_[s][table.codes[row * strings + s]]; slot >= 0)
        out[slot] = 1.0f;
    if (values)
      values[i] = static_cast<float>(table.values[row]);
    else
      labels[i] = table.labels[row];
    batch.samples[i] = samples[i];
  }
}

RawBatch Table::raw(Split split, const std::vector<int64_t>& samples) const {
  const Part& part = at(split);
  const TableRows& table = *part.table;
  const int64_t n = samples.size(), columns = info_.number_columns.size(),
                strings = info_.string_columns.size();
  RawBatch raw;
  raw.numbers = at::empty({n, columns}, at::kDouble);
  raw.targets = info_.classes.empty() ? at::empty({n, 1}, at::kFloat) : at::empty({n}, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = part.index.at(samples[i]);
    std::copy_n(table.numbers.data() + row * columns, columns,
                raw.numbers.data_ptr<double>() + i * columns);
    auto& texts = raw.strings.emplace_back();
    for (int64_t s = 0; s < strings; ++s)
      texts.push_back(dictionaries_[s].texts()[table.codes[row * strings + s]]);
    if (info_.classes.empty())
      raw.targets.data_ptr<float>()[i] = static_cast<float>(table.values[row]);
    else
      raw.targets.data_ptr<int64_t>()[i] = table.labels[row];
  }
  return raw;
}

// in double, as fill() does: subtract, divide, and only then round to float (dtype 6; 4 is int64)
Preprocessing Table::preprocessing() const {
  Preprocessing p;
  std::vector<double> mean, std;
  for (const auto& n : numbers_) mean.push_back(n.mean), std.push_back(n.std);
  p.buffers = {{"number_mean", at::tensor(mean, at::kDouble)},
               {"number_std", at::tensor(std, at::kDouble)}};
  p.source = R"(
def preprocess(self, numbers: Tensor, strings: List[List[str]]) -> Tensor:
    missing = torch.isnan(numbers)
    x = (numbers - self.number_mean) / self.number_std
    x = torch.where(missing, torch.zeros_like(x), x).to(dtype=6)
)";
  if (!indicators_.empty()) {
    p.buffers.emplace_back("indicator_columns", at::tensor(indicators_, at::kLong));
    p.source +=
        "    x = torch.cat([x, missing.index_select(1, self.indicator_columns).to(dtype=6)], "
        "1)\n";
  }
  if (!info_.string_columns.empty()) {
    p.string_maps.emplace_back("categories", categories_);
    // a value that training never saw sets nothing
    p.source += fmt::format(R"(    width = {}
    hot: List[int] = []
    for i in range(len(strings)):
        row = strings[i]
        for j in range(len(row)):
            key = str(j) + ":" + row[j]
            if key in self.categories:
                hot.append(i * width + self.categories[key])
    one = torch.zeros([numbers.size(0) * width], dtype=6, device=numbers.device)
    one.index_fill_(0, torch.tensor(hot, dtype=4, device=numbers.device), 1.0)
    x = torch.cat([x, one.view([-1, width])], 1)
)",
                            info_.features - first_category_);
  }
  p.source += "    return x\n";
  return p;
}

}  // namespace

std::shared_ptr<Dataset> open_table(const FieldSource& fields) {
  return std::make_shared<Table>(fields);
}

}  // namespace lehr::data
