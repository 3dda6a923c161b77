#include "engine/run/micro_batches.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/step/fields.h"
#include "models/flops.h"

namespace lehr::run {

std::vector<int64_t> micro_batches(const Plan& plan, int64_t count, int64_t ranks, bool together) {
  std::vector<int64_t> sizes;
  if (plan.shards > 0) {
    for (int64_t s = 0; s < plan.shards; ++s)
      if (const int64_t n = count * (s + 1) / plan.shards - count * s / plan.shards; n > 0)
        sizes.push_back(n);
    return sizes;
  }
  for (int64_t rank = 0; rank < ranks; ++rank) {
    int64_t left = count * (rank + 1) / ranks - count * rank / ranks;
    for (size_t round = 0; left > 0; ++round) {
      const int64_t n = std::min(plan.micro_batch, left);
      left -= n;
      if (together && round < sizes.size())
        sizes[round] += n;
      else
        sizes.push_back(n);
    }
  }
  return sizes;
}

std::string check_batch_norm(const Parts& parts, int64_t ranks) {
  const Plan& plan = parts.plan;
  const bool together =
      parts.recipe.get<step::ParallelismFields>().batch_norm == "synchronised" && ranks > 1;
  const int64_t whole = std::min(plan.global_batch, plan.samples_per_epoch);
  const int64_t rest = plan.samples_per_epoch % whole;
  const auto alone = [&](int64_t count) {
    const auto sizes = micro_batches(plan, count, ranks, together);
    return static_cast<double>(std::count(sizes.begin(), sizes.end(), 1)) /
           static_cast<double>(sizes.size());
  };
  const double share = alone(whole);
  const bool at_end = rest > 0 && plan.total_steps >= plan.steps_per_epoch && alone(rest) > 0;
  if (share == 0 && !at_end) return "";

  models::ModelContext context = parts.context;
  context.options = context.options.device(at::kMeta);
  const auto model = models::make_model(parts.recipe, context);
  if (model->buffers().empty() || models::dry_run(*model, context).least_norm_values != 1)
    return "";
  const char* where = parts.recipe.get<TrainingFields>().micro_batch_size
                          ? "training.micro_batch_size"
                          : "training.global_batch_size";
  if (share == 1)
    throw Error(
        Code::kRecipe,
        "every micro-batch has one sample, and the model's batch norm over maps of 1 x 1 makes 0 "
        "of a single value",
        where, "give a micro-batch two samples or more, or the model larger maps or no batch norm");
  return fmt::format(
      "{} has a micro-batch of one sample, of which the model's batch norm over maps of 1 x 1 "
      "makes 0; its running variance is left as it was there\n  {}",
      share > 0 ? "a step" : fmt::format("the last step of an epoch, of {} sample(s),", rest),
      share > 0 ? "choose a micro-batch that divides the samples of a step"
                : "data.drop_last: true leaves such a step out");
}

}  // namespace lehr::run
