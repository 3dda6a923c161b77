// The recipe fields of section `data`: those of every source, and those of each source.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/fields.h"

namespace lehr::data {

struct DataFields {
  std::string source = "idx";
  std::string name;
  StringList classes;
  double validation_fraction = 0.1;
  int64_t split_seed = 0;
  bool drop_last = false;
  int64_t threads = 2, prefetch = 4;
  static Section section();
};

// idx and npy
struct ArrayFields {
  std::string train_images, train_labels, validation_images, validation_labels, test_images,
      test_labels;
  static Section section();
};

struct FolderFields {
  std::string train_folder, validation_folder, test_folder;
  int64_t image_size = 224, resize = 0;
  bool grey = false;
  std::string bad_samples = "stop";
  int64_t max_bad_samples = 100;
  double random_resized_crop = 0;
  static Section section();
};

// every source of images
struct ImageFields {
  FloatList mean, std;
  int64_t pad_crop = 0, cutout = 0;
  double flip = 0;
  static Section section();
};

// csv and text
struct FileFields {
  std::string train_file, validation_file, test_file;
  static Section section();
};

struct TableFields {
  std::string target, task = "auto", delimiter = ",";
  StringList number_columns, string_columns, ignore_columns, missing_values;
  double test_fraction = 0;
  static Section section();
};

struct TextFields {
  std::string tokenizer = "char", tokenizer_file, split_pattern = "gpt2", document_separator;
  static Section section();
};

struct TokensFields {
  StringList train_tokens, validation_tokens, test_tokens;
  FloatList weights;
  static Section section();
};

// text and tokens
struct WindowFields {
  int64_t context = 256;
  bool document_mask = false;
  static Section section();
};

}  // namespace lehr::data
