// Numbers worked by hand, undefined cases, and what a recipe may ask for.
#include "engine/metrics/metrics.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "engine/base/error.h"
#include "engine/metrics/fields.h"
#include "engine/metrics/sum.h"

namespace lehr::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

MetricContext of_classes(int64_t classes) {
  MetricContext context;
  context.classes = classes;
  return context;
}

std::unique_ptr<Metric> make(const std::string& name, const MetricContext& context) {
  return std::move(make_metrics({name}, context).front());
}

Result result_of(const std::string& name, const MetricContext& context, const at::Tensor& scores,
                 const at::Tensor& targets) {
  auto metric = make(name, context);
  metric->update(scores, targets);
  return metric->compute().at(0);
}

at::Tensor two(std::vector<double> positive) {
  const at::Tensor p = at::tensor(positive, at::kDouble);
  return at::stack({1 - p, p}, 1);
}

at::Tensor labels(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

// predictions 1 1 0 1 0 for truths 1 0 0 1 1: tp 2, fp 1, fn 1, tn 1
const std::vector<double> kScores{0.9, 0.8, 0.4, 0.7, 0.2};
const std::vector<int64_t> kTruth{1, 0, 0, 1, 1};

TEST(Metrics, GiveNumbersWorkedByHand) {
  const std::vector<std::pair<std::string, double>> expected = {
      {"accuracy", 3.0 / 5},
      {"precision", 2.0 / 3},
      {"recall", 2.0 / 3},
      {"sensitivity", 2.0 / 3},
      {"specificity", 1.0 / 2},
      {"f1", 2.0 / 3},
      // pairs (positive, negative) in order: .9 beats both, .7 beats .4, .2 none: 3 of 6
      {"roc_auc", 3.0 / 6},
      // precision at each positive from the top: 1/1, 2/3, 3/5
      {"pr_auc", (1 + 2.0 / 3 + 3.0 / 5) / 3},
      {"log_loss",
       -(std::log(.9) + std::log(.2) + std::log(.6) + std::log(.7) + std::log(.2)) / 5}};
  for (const auto& [name, value] : expected) {
    const Result r = result_of(name, of_classes(2), two(kScores), labels(kTruth));
    EXPECT_EQ(r.name, name);
    ASSERT_TRUE(r.value) << name << ": " << r.why;
    EXPECT_NEAR(*r.value, value, 1e-15) << name;
  }
}

TEST(Metrics, CountTiesHalf) {
  EXPECT_EQ(result_of("roc_auc", of_classes(2), two({.5, .5, .5}), labels({1, 0, 0})).value, 0.5);
  EXPECT_EQ(result_of("roc_auc", of_classes(2), two({.5, .5, .2}), labels({1, 0, 0})).value, 0.75);
}

TEST(Metrics, CountClassesByTruthAndPrediction) {
  auto confusion = make("confusion", of_classes(3));
  const at::Tensor scores = at::tensor({.8, .1, .1, .1, .8, .1, .8, .1, .1}).reshape({3, 3});
  confusion->update(scores, labels({0, 1, 2}));
  EXPECT_EQ(confusion->matrix(), (Matrix{{1, 0, 0}, {0, 1, 0}, {1, 0, 0}}));
  EXPECT_TRUE(confusion->compute().empty());
  EXPECT_TRUE(make("accuracy", of_classes(3))->matrix().empty());
}

TEST(Metrics, TakeFloat32AsItIs) {
  const at::Tensor half = two(kScores).to(at::kFloat);
  const Result single = result_of("log_loss", of_classes(2), half, labels(kTruth));
  const Result twice = result_of("log_loss", of_classes(2), half.to(at::kDouble), labels(kTruth));
  EXPECT_EQ(single.value, twice.value);
}

TEST(Metrics, SayWhyThereIsNoNumber) {
  const auto why = [](const std::string& name, std::vector<double> p, std::vector<int64_t> y) {
    const Result r = result_of(name, of_classes(2), two(p), labels(y));
    EXPECT_FALSE(r.value) << name;
    return r.why;
  };
  EXPECT_EQ(why("roc_auc", {.1, .9}, {0, 0}), "no sample is of class 1");
  EXPECT_EQ(why("roc_auc", {.1, .9}, {1, 1}), "every sample is of class 1");
  EXPECT_EQ(why("pr_auc", {.1, .9}, {0, 0}), "no sample is of class 1");
  EXPECT_EQ(why("precision", {.1, .2}, {0, 1}), "no sample was predicted as class 1");
  EXPECT_EQ(why("recall", {.1, .9}, {0, 0}), "no sample is of the positive class 1");
  EXPECT_EQ(why("specificity", {.1, .9}, {1, 1}), "every sample is of the positive class 1");
  EXPECT_EQ(why("f1", {.1, .2}, {0, 0}), "class 1 was neither seen nor predicted");
  EXPECT_EQ(why("accuracy", {.1, kNan}, {0, 0}), "1 of 2 samples have a score that is not finite");
  const at::Tensor constant = at::full({4, 1}, 0.1);
  EXPECT_EQ(result_of("r2", {}, at::rand({4, 1}), constant).why,
            "all true values of output 0 are equal");
  EXPECT_EQ(
      result_of("rmse", {}, at::full({2, 1}, 1e300, at::kDouble), constant.narrow(0, 0, 2)).why,
      "the values leave the range of double precision");
}

TEST(Metrics, NeverGiveNan) {
  const std::vector<double> odd{0, 1, 0.5, kNan, INFINITY, -INFINITY, 1e308, 5e-324, -1};
  std::mt19937 random(3);
  for (const MetricEntry& entry : registry())
    for (int round = 0; round < 200; ++round) {
      const int64_t classes = entry.for_values ? 0 : entry.binary_only ? 2 : 2 + round % 4;
      const int64_t count = round % 5, columns = entry.for_values ? 1 + round % 2 : classes;
      at::Tensor scores = at::empty({count, columns}, at::kDouble),
                 targets = at::empty_like(scores);
      for (int64_t i = 0; i < scores.numel(); ++i) {
        scores.view(-1)[i] = odd[random() % (round % 2 ? 3 : odd.size())];
        targets.view(-1)[i] = odd[random() % (round % 2 ? 3 : odd.size())];
      }
      if (classes > 0) {
        targets = at::empty({count}, at::kLong);
        for (int64_t i = 0; i < count; ++i) targets[i] = static_cast<int64_t>(random() % classes);
      }
      auto metric = entry.make(of_classes(classes));
      metric->update(scores, targets);
      auto merged = entry.make(of_classes(classes));
      merged->merge(metric->state());
      for (const Metric* m : {metric.get(), merged.get()})
        for (const Result& r : m->compute()) {
          EXPECT_EQ(r.name, entry.name);
          EXPECT_NE(r.value.has_value(), !r.why.empty()) << entry.name;
          EXPECT_TRUE(std::isfinite(r.value.value_or(0))) << entry.name;
        }
    }
}

TEST(Metrics, SayThatNothingWasSeen) {
  for (const MetricEntry& entry : registry()) {
    auto metric = entry.make(of_classes(entry.for_values ? 0 : 2));
    auto merged = entry.make(of_classes(entry.for_values ? 0 : 2));
    merged->merge(at::cat({metric->state(), metric->state()}));  // ranks without samples
    for (const Result& r : merged->compute()) EXPECT_EQ(r.why, "no samples were seen") << r.name;
  }
}

TEST(Metrics, RefuseALabelThatIsNoClass) {
  auto metric = make("accuracy", of_classes(2));
  try {
    metric->update(two({.5}), labels({2}));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_EQ(error.message(), "target 2 is no class of 0..1");
  }
}

TEST(Metrics, NameTheNearestOfAnUnknownName) {
  const auto hint = [](const StringList& names, int64_t classes) {
    try {
      make_metrics(names, of_classes(classes));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kRecipe);
      return error.hint();
    }
    return std::string("no error");
  };
  EXPECT_EQ(hint({"acuracy"}, 3), "Did you mean accuracy?");
  EXPECT_EQ(hint({"f1"}, 3), "Use f1_macro or f1_micro.");
  EXPECT_EQ(hint({"specificity"}, 3), "Use recall_macro.");
  EXPECT_NE(hint({"accuracy"}, 0), "no error");
  EXPECT_NE(hint({"rmse"}, 2), "no error");
  EXPECT_NE(hint({"top_0_accuracy"}, 9), "no error");
  EXPECT_EQ(hint({"top_3_accuracy", "roc_auc"}, 9), "no error");
}

TEST(Metrics, HaveUsualOnesForEveryTask) {
  for (int64_t classes : {0, 2, 3, 10, 100, 1000}) {
    EXPECT_FALSE(make_metrics({}, of_classes(classes)).empty());
    EXPECT_EQ(usual_metrics(of_classes(classes)).size(),
              make_metrics({}, of_classes(classes)).size());
  }
}

TEST(Metrics, KnowWhichWayIsBetter) {
  EXPECT_TRUE(larger_is_better("accuracy"));
  EXPECT_TRUE(larger_is_better("validation.top_3_accuracy"));
  EXPECT_FALSE(larger_is_better("loss"));
  EXPECT_FALSE(larger_is_better("validation.loss"));
  EXPECT_FALSE(larger_is_better("rmse"));
  EXPECT_FALSE(larger_is_better("calibration_error"));
  EXPECT_THROW(larger_is_better("validation.acuracy"), Error);
}

TEST(Metrics, FindThePositiveClassByNameOrIndex) {
  MetricsFields fields;
  EXPECT_EQ(make_context(fields, {"normal", "pneumonia"}).positive, 1);
  fields.positive = "normal";
  EXPECT_EQ(make_context(fields, {"normal", "pneumonia"}).positive, 0);
  fields.positive = "1";
  EXPECT_EQ(make_context(fields, {"normal", "pneumonia"}).positive, 1);
  for (const char* wrong : {"norml", "2", "-1", "1x"}) {
    fields.positive = wrong;
    EXPECT_THROW(make_context(fields, {"normal", "pneumonia"}), Error) << wrong;
  }
}

TEST(Sums, DoNotDependOnTheOrderOfTheirTerms) {
  std::mt19937_64 random(1);
  std::vector<double> terms;
  for (int i = 0; i < 1000; ++i)
    terms.push_back(
        std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 80) - 100) *
        (random() % 2 ? 1 : -1));
  double first = 0;
  for (int round = 0; round < 20; ++round) {
    std::shuffle(terms.begin(), terms.end(), random);
    Sum parts[3], whole;
    for (size_t i = 0; i < terms.size(); ++i) parts[random() % 3].add(terms[i]);
    for (const Sum& part : parts) whole.add(part);
    if (round == 0) first = whole.value();
    EXPECT_EQ(whole.value(), first);
  }
}

}  // namespace
}  // namespace lehr::metrics
