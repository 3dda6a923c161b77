// Samples per second of the loader: shuffled uint8 images to normalised float batches. Prints one
// JSON object, e.g. {"samples_per_s": ..., "augmented_samples_per_s": ..., "threads": 2, "batch":
// 128}.
//   bench_loader [IMAGES LABELS] [threads] [batch] [seconds]; without files: 60,000 images 28 x 28
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/data/loader.h"

using namespace lehr;

namespace {

double rate(std::shared_ptr<data::Dataset> dataset, bool augment, int threads, int64_t batch,
            double seconds) {
  data::LoaderOptions options;
  options.global_batch = options.micro_batch = batch;
  options.threads = threads;
  options.augment = augment;
  data::Loader loader(dataset, options);
  using Clock = std::chrono::steady_clock;
  auto since = [](Clock::time_point t) {
    return std::chrono::duration<double>(Clock::now() - t).count();
  };
  for (int i = 0; i < 20; ++i) loader.next();
  const auto start = Clock::now();
  int64_t samples = 0;
  double sum = 0;
  while (since(start) < seconds) {
    const data::StepBatch step = loader.next();
    samples += step.samples;
    sum += step.micro[0].inputs.data_ptr<float>()[0];  // the batch is there
  }
  if (sum == 0.123) std::puts("");
  return samples / since(start);
}

void write_images(const std::string& images, const std::string& labels) {
  const unsigned char head[] = {0, 0, 8, 3, 0, 0, 0xea, 0x60, 0, 0, 0, 28, 0, 0, 0, 28};
  std::string pixels(60000 * 784, 0);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<char>(i * 2654435761u >> 13);
  std::ofstream(images, std::ios::binary).write(reinterpret_cast<const char*>(head), 16) << pixels;
  const unsigned char label_head[] = {0, 0, 8, 1, 0, 0, 0xea, 0x60};
  std::string numbers(60000, 0);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<char>(i % 10);
  std::ofstream(labels, std::ios::binary).write(reinterpret_cast<const char*>(label_head), 8)
      << numbers;
}

}  // namespace

int main(int argc, char** argv) {
  const bool files = argc > 2 && !std::isdigit(argv[1][0]);
  std::string images = "/tmp/bench_loader_images", labels = "/tmp/bench_loader_labels";
  if (files)
    images = argv[1], labels = argv[2];
  else
    write_images(images, labels);
  const int at = files ? 3 : 1;
  const int threads = argc > at ? std::atoi(argv[at]) : 2;
  const int64_t batch = argc > at + 1 ? std::atoll(argv[at + 1]) : 128;
  const double seconds = argc > at + 2 ? std::atof(argv[at + 2]) : 2;
  FixedFields fields({{"data.train_images", images},
                      {"data.train_labels", labels},
                      {"data.validation_fraction", 0.0},
                      {"data.augment.pad_crop", int64_t{2}},
                      {"data.augment.flip", 0.5},
                      {"data.augment.cutout", int64_t{8}}});
  const auto start = std::chrono::steady_clock::now();
  auto dataset = data::open_dataset(fields);
  const double open =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  nlohmann::ordered_json json{
      {"samples_per_s", rate(dataset, false, threads, batch, seconds)},
      {"augmented_samples_per_s", rate(dataset, true, threads, batch, seconds)},
      {"threads", threads},
      {"batch", batch},
      {"open_s", open}};
  std::puts(json.dump().c_str());
  if (!files) std::remove(images.c_str()), std::remove(labels.c_str());
}
