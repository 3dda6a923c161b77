#include "engine/data/images.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/log.h"

namespace lehr::data {
namespace {

using Json = nlohmann::ordered_json;

// the same operations, in the same order, as Normalizer: multiply, then add, each rounded to float.
// permute keeps [N, H, W, C] memory, which is what channels-last means. Compiled in C++,
// TorchScript knows dtypes and memory formats by number alone: 6 is float32, 2 is channels-last.
constexpr char kPreprocess[] = R"(
def preprocess(self, images: Tensor) -> Tensor:
    if images.dim() == 3:
        images = images.unsqueeze(3)
    x = images.permute(0, 3, 1, 2).to(dtype=6)
    x = x * self.scale + self.shift
    return x.contiguous(memory_format=2)
)";

// shuffled images miss every cache: fetching them this far ahead halves the time per sample
// (measured)
constexpr int64_t kAhead = 2;
void fetch(const uint8_t* image, int64_t bytes) {
  if (!image) return;
  for (int64_t at = 0; at < std::min<int64_t>(bytes, 4096); at += 64)
    __builtin_prefetch(image + at);
}

int64_t count_in(const at::Tensor& targets, int64_t cls) {
  return (targets == cls).sum().item<int64_t>();
}

}  // namespace

void ImageDataset::fit(const ImageFields& fields, const std::vector<int64_t>& looked_at) {
  fields_ = fields;
  const int64_t channels = info_.channels, pixel_count = info_.height * info_.width;
  std::vector<Moments> moments(channels);
  std::vector<uint8_t> scratch;
  int64_t measured = 0;
  for (int64_t sample : looked_at) {
    const uint8_t* image = good_pixels(Split::kTrain, sample, nullptr, scratch);
    if (!image) continue;
    ++measured;
    accumulate(image, pixel_count, moments);
  }
  if (most_left_out_)
    check_bad_samples(looked_at.size() - measured, *most_left_out_,
                      fmt::format("the first {} that were looked at", looked_at.size()));
  if (measured == 0)
    throw Error(Code::kData, "no training image can be read", "",
                "`lehr check --all` says of each what is wrong.");

  auto per_channel = [&](const FloatList& given, const char* name) {
    if (given.empty() || static_cast<int64_t>(given.size()) == channels) return;
    throw Error(Code::kRecipe,
                fmt::format("{} values for images of {} channels", given.size(), channels),
                fmt::format("data.normalize.{}", name),
                "Give one per channel, or none to use the training images'.");
  };
  per_channel(fields.mean, "mean");
  per_channel(fields.std, "std");
  Json figures = Json::array();
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = fields.mean.empty() ? moments[c].mean() / 255 : fields.mean[c];
    double std = fields.std.empty() ? moments[c].std() / 255 : fields.std[c];
    if (!fields.std.empty() && !(std > 0))
      throw Error(Code::kRecipe, fmt::format("{} is no standard deviation", std),
                  "data.normalize.std");
    if (std == 0) std = 1;  // all pixels alike
    scale_.push_back(static_cast<float>(1 / (255 * std)));
    shift_.push_back(static_cast<float>(-mean / std));
    figures.push_back({{"mean", moments[c].mean() / 255},
                       {"std", moments[c].std() / 255},
                       {"min", moments[c].minimum},
                       {"max", moments[c].maximum},
                       {"normalize_mean", mean},
                       {"normalize_std", std}});
  }
  normalizer_ = Normalizer(info_.height, info_.width, channels, scale_, shift_);

  Json json{{"kind", "images"},
            {"height", info_.height},
            {"width", info_.width},
            {"samples",
             {{"train", size(Split::kTrain)},
              {"validation", size(Split::kValidation)},
              {"test", size(Split::kTest)}}},
            {"images_measured", measured},
            {"channels", figures}};
  if (info_.resize) json["resize"] = info_.resize;
  if (!info_.classes.empty()) {
    Json counts = Json::object();
    for (size_t i = 0; i < info_.classes.size(); ++i)
      counts[info_.classes[i]] = count_in(at(Split::kTrain), i);
    json["classes"] = counts;
  } else {
    auto targets = at(Split::kTrain).to(at::kDouble);
    json["target"] = {{"mean", targets.mean().item<double>()},
                      {"std", targets.std(false).item<double>()},
                      {"min", targets.min().item<double>()},
                      {"max", targets.max().item<double>()}};
  }
  statistics_ = json.dump(2);
}

const uint8_t* ImageDataset::good_pixels(Split split, int64_t sample, Random* random,
                                         std::vector<uint8_t>& scratch) const {
  try {
    return pixels(split, sample, random, scratch);
  } catch (const BadPicture& why) {
    const std::string hint = why.hint().empty() ? "" : why.hint() + "\n  ";
    if (!most_left_out_)
      throw BadPicture(why.code(), why.message(), why.where(),
                       hint +
                           "`lehr check --all` lists all such files; data.bad_samples: skip goes "
                           "on without them.");
    std::lock_guard lock(left_out_mutex_);
    if (left_out_.try_emplace({split, sample}, why.what()).second)
      log_warning(fmt::format("left out, from the {} set: {}", to_string(split), why.what()));
    return nullptr;
  }
}

StringList ImageDataset::left_out() const {
  std::lock_guard lock(left_out_mutex_);
  StringList lines;
  for (const auto& [place, why] : left_out_)
    lines.push_back(fmt::format("{}: {}", to_string(place.first), why));
  return lines;
}

StringList ImageDataset::remarks() const {
  constexpr int64_t kNamed = 12;  // classes that are named one by one
  StringList lines = remarks_;
  const int64_t classes = static_cast<int64_t>(info_.classes.size());
  for (Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
    if (size(split) == 0) continue;
    std::string line = fmt::format("{}: {} images", to_string(split), size(split));
    if (classes > 0) {
      const at::Tensor counts = at::bincount(at(split), {}, classes);
      line += fmt::format(" of {} classes, {} to {} of each", classes, counts.min().item<int64_t>(),
                          counts.max().item<int64_t>());
      for (int64_t c = 0; c < std::min(classes, kNamed); ++c)
        line +=
            fmt::format("{}{} {}", c ? ", " : ": ", info_.classes[c], counts[c].item<int64_t>());
      if (classes > kNamed) line += ", ...";
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

Batch ImageDataset::allocate(int64_t size) const {
  Batch batch;
  batch.inputs = at::empty(
      {size, info_.channels, info_.height, info_.width},
      at::TensorOptions().dtype(at::kFloat).memory_format(at::MemoryFormat::ChannelsLast));
  batch.targets = info_.classes.empty() ? at::empty({size, info_.values}, at::kFloat)
                                        : at::empty({size}, at::kLong);
  batch.samples.resize(size);
  return batch;
}

Window ImageDataset::draw(Random& random) const {
  Window w;
  if (fields_.pad_crop > 0) {
    const auto reach = static_cast<uint32_t>(2 * fields_.pad_crop + 1);
    w.dy = static_cast<int>(random.below(reach)) - static_cast<int>(fields_.pad_crop);
    w.dx = static_cast<int>(random.below(reach)) - static_cast<int>(fields_.pad_crop);
  }
  if (fields_.flip > 0) w.flip = random.uniform() < fields_.flip;
  if (fields_.cutout > 0) {
    // any pixel may be the centre; what reaches beyond the border is clipped
    const int side = static_cast<int>(fields_.cutout);
    const int height = static_cast<int>(info_.height), width = static_cast<int>(info_.width);
    const int top = static_cast<int>(random.below(height)) - side / 2;
    const int left = static_cast<int>(random.below(width)) - side / 2;
    w.top = std::max(top, 0), w.bottom = std::min(top + side, height);
    w.left = std::max(left, 0), w.right = std::min(left + side, width);
  }
  return w;
}

void ImageDataset::fill(Split split, const int64_t* samples, int64_t begin, int64_t end,
                        bool augment, uint64_t seed, int64_t epoch, Batch& batch) const {
  TORCH_CHECK(batch.inputs.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                  batch.targets.is_contiguous() && batch.inputs.size(0) >= end,
              "fill: the batch is not one that allocate() made");
  const int64_t image = info_.channels * info_.height * info_.width;
  float* inputs = batch.inputs.data_ptr<float>();
  const at::Tensor& targets = at(split);
  const int64_t* classes = info_.classes.empty() ? nullptr : targets.data_ptr<int64_t>();
  const float* values = classes ? nullptr : targets.data_ptr<float>();
  int64_t* class_out = classes ? batch.targets.data_ptr<int64_t>() : nullptr;
  float* value_out = classes ? nullptr : batch.targets.data_ptr<float>();

  // kept per thread: source pixels, and the shifted copy of them
  static thread_local std::vector<uint8_t> source, shifted;
  if (augment && static_cast<int64_t>(shifted.size()) < image) shifted.resize(image);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t sample = samples[i];
    if (i + kAhead < end) fetch(address(split, samples[i + kAhead]), image);
    batch.samples[i] = sample;
    if (classes)
      class_out[i] = classes[sample];
    else
      std::copy_n(values + sample * info_.values, info_.values, value_out + i * info_.values);
    Random random(seed, Stream::kAugment, sample, epoch);
    const uint8_t* in = good_pixels(split, sample, augment ? &random : nullptr, source);
    if (!in)
      batch.samples[i] = kLeftOut;
    else if (augment)
      normalizer_.window(in, draw(random), shifted.data(), inputs + i * image);
    else
      normalizer_.whole(in, inputs + i * image);
  }
}

RawBatch ImageDataset::raw(Split split, const std::vector<int64_t>& samples) const {
  const int64_t n = static_cast<int64_t>(samples.size()),
                image = info_.channels * info_.height * info_.width;
  RawBatch raw;
  raw.images = info_.channels == 1
                   ? at::empty({n, info_.height, info_.width}, at::kByte)
                   : at::empty({n, info_.height, info_.width, info_.channels}, at::kByte);
  std::vector<uint8_t> scratch;
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(raw.images.data_ptr<uint8_t>() + i * image,
                pixels(split, samples[i], nullptr, scratch), image);
  raw.targets = at(split).index_select(0, at::tensor(samples, at::kLong));
  return raw;
}

Preprocessing ImageDataset::preprocessing() const {
  auto column = [](const std::vector<float>& values) {
    return at::tensor(values, at::kFloat).view({-1, 1, 1});
  };
  return {kPreprocess, {{"scale", column(scale_)}, {"shift", column(shift_)}}, {}, {}};
}

}  // namespace lehr::data
