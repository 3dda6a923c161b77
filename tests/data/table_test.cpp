// CSV files as a data set: columns, splits, standardising, categories, targets.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "engine/data/dataset.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

std::vector<int64_t> all(const Dataset& set, Split split) {
  std::vector<int64_t> samples(set.size(split));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = i;
  return samples;
}

Batch filled(const Dataset& set, Split split) {
  Batch batch = set.allocate(set.size(split));
  const auto samples = all(set, split);
  set.fill(split, samples.data(), 0, samples.size(), true, 1, 1, batch);
  return batch;
}

// 300 rows: id, a number that is sometimes missing, a city, a target in words and one in numbers
std::string people() {
  std::string text = "id,age,city,bought,spent\n";
  const char* cities[] = {"Ulm", "Köln", "", "\"Halle, Saale\""};
  for (int i = 0; i < 300; ++i)
    text += fmt::format("{},{},{},{},{}\n", i, i % 7 == 3 ? "" : std::to_string(20 + i % 50),
                        cities[i % 4], i % 3 ? "no" : "yes", i * 0.25);
  return text;
}

class Tables : public testing::Test {
 protected:
  FixedFields fields(const std::string& target, const std::string& content = people()) {
    return FixedFields({{"data.source", std::string("csv")},
                        {"data.train_file", folder.write("train.csv", content)},
                        {"data.target", target},
                        {"data.ignore_columns", StringList{"id"}}});
  }
  TempFolder folder;
};

TEST_F(Tables, OrderClassesByValueWhereverTheyStand) {
  for (const char* rows : {"3\nnan\n1\n20\n-inf", "nan\n20\n3\n-inf\n1", "1\n3\n-inf\n20\nnan"}) {
    std::string content = "id,x,y\n";
    std::istringstream labels(rows);
    for (std::string label; std::getline(labels, label);)
      for (int i = 0; i < 9; ++i) content += fmt::format("{0},{0},{1}\n", i, label);
    const auto set =
        open_dataset(fields("y", content).set("data.task", std::string("classification")));
    EXPECT_EQ(set->info().classes, (StringList{"-inf", "1", "3", "20", "nan"}));
  }
}

TEST_F(Tables, InferColumnsAndTheTask) {
  auto set = open_dataset(fields("bought"));
  const DataInfo& info = set->info();
  EXPECT_EQ(info.number_columns, (StringList{"age", "spent"}));
  EXPECT_EQ(info.string_columns, (StringList{"city"}));
  EXPECT_EQ(info.classes, (StringList{"no", "yes"}));
  EXPECT_EQ(info.features, 2 + 1 + 4);  // numbers, an indicator for age, cities
  auto values = open_dataset(fields("spent"));
  EXPECT_EQ(values->info().string_columns, (StringList{"city", "bought"}));
  EXPECT_TRUE(values->info().classes.empty());
  EXPECT_EQ(values->info().values, 1);
  auto source = fields("age", "id,age,x\n1,10,1\n2,9,2\n3,10,4\n");
  source.set("data.task", std::string("classification")).set("data.validation_fraction", 0.0);
  EXPECT_EQ(open_dataset(source)->info().classes, (StringList{"9", "10"}));
}

TEST_F(Tables, StandardiseAndEncodeByTrainingRows) {
  auto set = open_dataset(fields("spent"));
  const int64_t n = set->size(Split::kTrain);
  const RawBatch raw = set->raw(Split::kTrain, all(*set, Split::kTrain));
  const Batch batch = filled(*set, Split::kTrain);
  EXPECT_TRUE(at::equal(batch.targets, raw.targets));
  const auto age = raw.numbers.select(1, 0), known = age.masked_select(age.isnan().logical_not());
  const auto expected =
      at::where(age.isnan(), at::zeros_like(age), (age - known.mean()) / known.std(false));
  EXPECT_TRUE(at::allclose(batch.inputs.select(1, 0).to(at::kDouble), expected, 1e-6, 1e-6));
  EXPECT_TRUE(at::equal(batch.inputs.select(1, 1), age.isnan().to(at::kFloat)));
  // one category of each string column is set
  EXPECT_TRUE(at::equal(batch.inputs.slice(1, 2).sum(1), at::full({n}, 2.0f)));
  const auto statistics = nlohmann::json::parse(set->statistics());
  EXPECT_NEAR(statistics["numbers"]["age"]["mean"].get<double>(), known.mean().item<double>(),
              1e-12);
  EXPECT_EQ(statistics["numbers"]["age"]["missing"].get<int64_t>(),
            age.isnan().sum().item<int64_t>());
  int64_t cities = 0;
  for (const auto& entry : statistics["strings"]["city"].items())
    cities += entry.value().get<int64_t>();
  EXPECT_EQ(cities, n);
  EXPECT_TRUE(statistics["strings"]["city"].contains("Halle, Saale"));
}

TEST_F(Tables, LeaveUnseenCategoriesAllZero) {
  auto source = fields("bought");
  source.set(
      "data.test_file",
      folder.write("test.csv", "spent,bought,city,age,id\n1,yes,Paris,20,1\n2,no,Ulm,21,2\n"));
  auto set = open_dataset(source);
  EXPECT_EQ(set->size(Split::kTest), 2);
  const Batch batch = filled(*set, Split::kTest);
  EXPECT_EQ(batch.inputs[0].slice(0, 3).sum().item<float>(), 0);
  EXPECT_EQ(batch.inputs[1].slice(0, 3).sum().item<float>(), 1);
  EXPECT_TRUE(at::equal(batch.targets,
                        at::tensor({int64_t{1}, int64_t{0}})));  // columns by name, not by place
}

TEST_F(Tables, KeepThreeDistinctSetsThatAddedRowsDoNotMix) {
  auto ids = [&](const std::string& content) {
    auto source = fields("bought", content);
    source.set("data.test_fraction", 0.2)
        .set("data.number_columns", StringList{"id"})
        .set("data.ignore_columns", StringList{});
    auto set = open_dataset(source);
    std::vector<std::set<double>> sets;
    for (Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
      const auto numbers = set->raw(split, all(*set, split)).numbers.contiguous();
      sets.emplace_back(numbers.data_ptr<double>(), numbers.data_ptr<double>() + numbers.numel());
      EXPECT_EQ(static_cast<int64_t>(sets.back().size()), set->size(split));
    }
    return sets;
  };
  const auto before = ids(people());
  EXPECT_EQ(before[0].size() + before[1].size() + before[2].size(), 300u);
  EXPECT_NEAR(before[2].size(), 60, 25);
  EXPECT_NEAR(before[1].size(), 24, 16);
  std::set<double> united;
  for (const auto& set : before) united.insert(set.begin(), set.end());
  EXPECT_EQ(united.size(), 300u);
  const auto after = ids(people() + "300,1,Ulm,yes,2\n301,1,Ulm,yes,2\n");
  for (int s = 0; s < 3; ++s)
    for (double id : before[s]) EXPECT_TRUE(after[s].count(id));
}

// 60 rows of a number, with `cells` instead of the first ones
std::string numbers_with(const StringList& cells) {
  std::string text = "id,x,y\n";
  for (size_t i = 0; i < 60; ++i)
    text += fmt::format("{},\"{}\",{}\n", i, i < cells.size() ? cells[i] : fmt::format("{}.5", i),
                        i * 0.5);
  return text;
}

TEST_F(Tables, RefuseAColumnOfNumbersThatAFewCellsWouldMakeCategories) {
  const auto opened = [&](const StringList& cells) {
    return open_dataset(
        fields("y", numbers_with(cells)).set("data.missing_values", StringList{"?"}));
  };
  EXPECT_EQ(opened({})->info().features, 1);
  for (const char* missing : {"None", "#N/A", "", "?"})
    EXPECT_EQ(opened({missing})->info().number_columns, StringList{"x"}) << missing;
  const Error error = error_of([&] { opened({"12", "unknown", "12", "unknown", "-"}); });
  EXPECT_EQ(error.code(), Code::kData);
  EXPECT_EQ(error.where(), folder.path("train.csv"));
  EXPECT_EQ(error.message(),
            "column 'x' would become a category a value: 57 of 60 cells are numbers, and 'unknown' "
            "(line 3), '-' (line 6) and others are not");
  EXPECT_TRUE(holds(error.hint(), "data.missing_values"));
  StringList commas;
  for (int i = 0; i < 60; ++i) commas.push_back(fmt::format("{},5", i));
  EXPECT_TRUE(holds(error_of([&] { opened(commas); }).hint(), "with a point"));
  // as a target too
  auto source = fields("x", numbers_with({"unknown"}));
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).hint(), "say data.task"));
  // declared, or a code of a few values: as it is, and said
  source = fields("y", numbers_with({"unknown"}));
  source.set("data.string_columns", StringList{"x"});
  EXPECT_EQ(open_dataset(source)->info().string_columns, StringList{"x"});
  std::string codes = "id,x,y\n";
  for (int i = 0; i < 60; ++i)
    codes += fmt::format("{},{},1\n", i, i % 6 ? std::to_string(i % 6) : "A");
  const auto remarks = open_dataset(fields("y", codes))->remarks();
  EXPECT_EQ(std::count(remarks.begin(), remarks.end(),
                       "column 'x' is taken as categories: 50 of 60 cells are numbers, and 'A' "
                       "(line 2) and others are not"),
            1);
}

TEST_F(Tables, SayWhatEachColumnIsAndWhatIsUnseen) {
  auto source = fields("bought");
  source.set("data.validation_fraction", 0.0)
      .set("data.test_file",
           folder.write("test.csv",
                        "id,age,city,bought,spent\n1,2,Paris,no,3\n1,2,Rom,no,3\n1,2,"
                        "Ulm,no,3\n"));
  EXPECT_EQ(
      open_dataset(source)->remarks(),
      (StringList{"column 'age': numbers, 257 values, 43 missing",
                  "column 'spent': numbers, 300 values",
                  "column 'city': categories, 4 different values",
                  "test: 2 of 3 rows have a value of 'city' that training has not: 'Paris'"}));
}

TEST_F(Tables, MeasureConstantNearlyConstantAndLargeColumns) {
  const auto number = [&](const std::function<std::string(int)>& cell) {
    std::string text = "id,x,y\n";
    for (int i = 0; i < 856; ++i) text += fmt::format("{},{},{}\n", i, cell(i), i % 2);
    auto source = fields("y", text);
    source.set("data.validation_fraction", 0.0);
    const auto set = open_dataset(source);
    EXPECT_TRUE(at::isfinite(filled(*set, Split::kTrain).inputs).all().item<bool>());
    return std::pair(nlohmann::json::parse(set->statistics())["numbers"]["x"], set->remarks()[0]);
  };
  auto [constant, said] = number([](int) { return "14.62"; });
  EXPECT_EQ(constant["std"], 0.0);
  EXPECT_EQ(constant["mean"], 14.62);
  EXPECT_EQ(said, "column 'x': numbers, 856 values, constant (14.62)");
  // the last digit of a sum, as a computed column has it
  EXPECT_EQ(number([](int i) { return i % 2 ? "0.30000000000000004" : "0.3"; }).first["std"], 0.0);
  EXPECT_GT(number([](int i) { return i ? "1e-6" : "1"; }).first["std"].get<double>(), 0.03);
  const auto large = number([](int i) { return i % 2 ? "1e200" : "-1e200"; }).first;
  EXPECT_NEAR(large["std"].get<double>() / 1e200, 1, 1e-12);
  EXPECT_TRUE(
      holds(error_of([&] { number([](int i) { return i % 2 ? "1.7e308" : "-1.7e308"; }); }).what(),
            "column 'x' holds values from"));
}

TEST_F(Tables, RefuseMoreCategoriesThanFeaturesMakeSense) {
  std::string text = "id,x,y\n";
  for (int i = 0; i < 100'001; ++i) text += fmt::format("{},k{},1\n", i, i);
  auto source = fields("y", text);
  source.set("data.validation_fraction", 0.0);
  const Error error = error_of([&] { open_dataset(source); });
  EXPECT_TRUE(holds(error.what(), "column 'x' has 100001 different values"));
  EXPECT_TRUE(holds(error.hint(), "data.ignore_columns"));
}

TEST_F(Tables, NameTheRowThatIsWrong) {
  const std::string path = folder.path("train.csv");
  auto where = [&](const std::string& target, const std::string& content) {
    auto source = fields(target, content);
    source.set("data.validation_fraction", 0.0);
    return error_of([&] { open_dataset(source); }).where();
  };
  EXPECT_EQ(where("y", "id,x,y\n1,2,3\n1,2,\n"), path + ":3");
  EXPECT_EQ(where("y", "id,x,y\n1,2,a\n1,2,\n"), path + ":3");
  EXPECT_EQ(where("y", "id,x,y\n"), path);
  EXPECT_EQ(where("z", "id,x,y\n1,2,3\n"), "data.target");
  auto source = fields("bought");
  source.set("data.test_file",
             folder.write("test.csv", "id,age,city,bought,spent\n1,2,Ulm,perhaps,3\n"));
  const Error error = error_of([&] { open_dataset(source); });
  EXPECT_EQ(error.where(), folder.path("test.csv") + ":2");
  EXPECT_TRUE(holds(error.hint(), "no, yes"));
}

TEST_F(Tables, RefuseColumnsThatContradict) {
  auto source = fields("bought");
  source.set("data.number_columns", StringList{"aeg"});
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).hint(), "'age'"));
  source.set("data.number_columns", StringList{"age"})
      .set("data.string_columns", StringList{"bought"});
  EXPECT_TRUE(holds(error_of([&] { open_dataset(source); }).what(), "the target and an input"));
  source.set("data.string_columns", StringList{"age"});
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(source); }).what(), "among the numbers and the strings"));
  source = fields("bought");
  source.set("data.ignore_columns", StringList{"idd"});
  EXPECT_EQ(error_of([&] { open_dataset(source); }).where(), "data.ignore_columns");
}

}  // namespace
}  // namespace lehr::data
