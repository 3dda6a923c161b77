#include "engine/data/fields.h"

#include "engine/data/dataset.h"

namespace lehr::data {
namespace {

const StringList kArrays = {"idx", "npy"}, kFolder = {"image_folder"}, kTable = {"csv"};
const StringList kImages = {"idx", "npy", "image_folder"};

template <class T>
Declare<T> data_section() {
  return Declare<T>(
      "data", "What is learned from: the source, its three sets, how samples are made ready.");
}

}  // namespace

Section DataFields::section() {
  auto d = data_section<DataFields>();
  d.field("source", &DataFields::source,
          "Where samples come from: IDX files (as MNIST), npy arrays, folders of JPEG and PNG "
          "files with "
          "a folder per class, or CSV tables.")
      .choices({"idx", "npy", "image_folder", "csv"})
      .required()
      .synonyms({"data.format", "data.type", "training.dataset"});
  d.field("name", &DataFields::name,
          "The name by which scripts/data fetches this set; messages about missing files say it.");
  d.field("classes", &DataFields::classes,
          "Names of the classes in the order of their numbers; empty: the numbers, folders or "
          "labels found.")
      .synonyms({"data.class_names", "data.labels"});
  d.field("validation_fraction", &DataFields::validation_fraction,
          "Share of the training samples that becomes the validation set, where none is given; "
          "chosen by "
          "a hash of each sample, so that added samples move nobody.")
      .range(0, 0.9)
      .synonyms({"data.val_set_size", "data.validation_split", "data.val_fraction"});
  d.field("split_seed", &DataFields::split_seed,
          "Another seed holds out other samples; apart from training.seed, so that seeds are "
          "compared on "
          "the same sets.")
      .at_least(0);
  d.field("drop_last", &DataFields::drop_last,
          "Leaves out the samples that do not fill a last batch of an epoch; otherwise that batch "
          "is short.")
      .synonyms({"training.drop_last", "data.dataloader_drop_last"});
  d.field("threads", &DataFields::threads,
          "Threads that make batches ready; 0: the training thread does. The stream of samples "
          "does not "
          "depend on it.")
      .range(0, 256)
      .free_to_change()
      .synonyms({"data.num_workers", "data.dataloader_num_workers", "training.num_workers"});
  d.field("prefetch", &DataFields::prefetch, "Steps kept ready ahead of training.")
      .range(1, 1024)
      .unit("steps")
      .free_to_change()
      .synonyms({"data.prefetch_factor"});
  return d.section();
}

Section ArrayFields::section() {
  auto d = data_section<ArrayFields>();
  using F = ArrayFields;
  d.field("train_images", &F::train_images,
          "Training images, uint8 [N, H, W] or [N, H, W, C]; gzip or not.")
      .path()
      .required()
      .when("source", kArrays);
  d.field("train_labels", &F::train_labels,
          "Training labels: class numbers [N]; npy also floats [N] or [N, K] for regression.")
      .path()
      .required()
      .when("source", kArrays);
  d.field("validation_images", &F::validation_images,
          "Validation images; empty: validation_fraction of the training images.")
      .path()
      .when("source", kArrays)
      .synonyms({"data.val_images"});
  d.field("validation_labels", &F::validation_labels, "Labels of validation_images.")
      .path()
      .when("source", kArrays)
      .synonyms({"data.val_labels"});
  d.field("test_images", &F::test_images, "Test images, looked at once, at the end.")
      .path()
      .when("source", kArrays);
  d.field("test_labels", &F::test_labels, "Labels of test_images.").path().when("source", kArrays);
  return d.section();
}

Section FolderFields::section() {
  auto d = data_section<FolderFields>();
  using F = FolderFields;
  d.field("train_folder", &F::train_folder,
          "Training images: one folder per class, JPEG and PNG files in each.")
      .path()
      .required()
      .when("source", kFolder)
      .synonyms({"data.train_dir", "data.root"});
  d.field("validation_folder", &F::validation_folder,
          "Validation images; empty: validation_fraction of the training images.")
      .path()
      .when("source", kFolder)
      .synonyms({"data.val_folder", "data.val_dir"});
  d.field("test_folder", &F::test_folder, "Test images, looked at once, at the end.")
      .path()
      .when("source", kFolder);
  d.field("image_size", &F::image_size, "Height and width of the images that the model sees.")
      .range(1, 4096)
      .unit("pixels")
      .when("source", kFolder)
      .synonyms({"data.crop_size"});
  d.field("resize", &F::resize,
          "Shorter side that an image is scaled to before its centre is cropped to image_size; 0: "
          "image_size.")
      .range(0, 8192)
      .unit("pixels")
      .when("source", kFolder);
  d.field("grey", &F::grey, "Reads images as one channel of luma instead of RGB.")
      .when("source", kFolder);
  d.field("augment.random_resized_crop", &F::random_resized_crop,
          "Training crops hold a random share of the image's area from this share to all of it "
          "(0.08 is "
          "usual for photographs), at an aspect of 3/4 to 4/3; 0: off.")
      .range(0, 1)
      .when("source", kFolder);
  return d.section();
}

Section ImageFields::section() {
  auto d = data_section<ImageFields>();
  using F = ImageFields;
  d.field("normalize.mean", &F::mean,
          "Mean of each channel with pixels in 0..1; empty: that of the training images.")
      .when("source", kImages);
  d.field("normalize.std", &F::std,
          "Standard deviation of each channel with pixels in 0..1; empty: that of the training "
          "images.")
      .when("source", kImages);
  d.field("augment.pad_crop", &F::pad_crop,
          "Training images are padded with this many black pixels on each side, and a random part "
          "of the "
          "original size is taken.")
      .range(0, 4096)
      .unit("pixels")
      .when("source", kImages)
      .synonyms({"data.augment.random_crop"});
  d.field("augment.flip", &F::flip, "Probability that a training image is mirrored left to right.")
      .range(0, 1)
      .when("source", kImages)
      .synonyms({"data.augment.horizontal_flip", "data.augment.hflip"});
  d.field("augment.cutout", &F::cutout,
          "Side of the square around a random point that is set to the mean; 0: off.")
      .range(0, 4096)
      .unit("pixels")
      .when("source", kImages)
      .synonyms({"data.augment.random_erasing"});
  return d.section();
}

Section TableFields::section() {
  auto d = data_section<TableFields>();
  using F = TableFields;
  d.field("train_file", &F::train_file, "Training rows: CSV with a header line; gzip or not.")
      .path()
      .required()
      .when("source", kTable)
      .synonyms({"data.train_path", "data.csv"});
  d.field("validation_file", &F::validation_file,
          "Validation rows; empty: validation_fraction of the training rows.")
      .path()
      .when("source", kTable);
  d.field("test_file", &F::test_file, "Test rows; empty: test_fraction of the training rows.")
      .path()
      .when("source", kTable);
  d.field("test_fraction", &F::test_fraction,
          "Share of the training rows that becomes the test set, where no test_file is given; "
          "chosen as "
          "validation_fraction is.")
      .range(0, 0.9)
      .when("source", kTable);
  d.field("target", &F::target, "The column to predict.")
      .required()
      .when("source", kTable)
      .synonyms({"data.label", "data.target_column", "data.output_features"});
  d.field(
       "task", &F::task,
       "What the target is; auto: values where every entry is a number and data.classes is empty, "
       "else classes.")
      .choices({"auto", "classification", "regression"})
      .when("source", kTable);
  d.field(
       "number_columns", &F::number_columns,
       "Columns read as numbers, standardised by the training set; with string_columns also empty: "
       "every other column that holds only numbers.")
      .when("source", kTable)
      .synonyms({"data.numeric_columns", "data.input_features"});
  d.field("string_columns", &F::string_columns,
          "Columns read as categories, one feature per value of the training set; with "
          "number_columns also "
          "empty: every other column.")
      .when("source", kTable)
      .synonyms({"data.categorical_columns"});
  d.field("ignore_columns", &F::ignore_columns, "Columns left out where columns are inferred.")
      .when("source", kTable)
      .synonyms({"data.drop_columns"});
  d.field("delimiter", &F::delimiter,
          "What separates the fields of a row: one character, or `tab`.")
      .when("source", kTable)
      .synonyms({"data.separator", "data.sep"});
  return d.section();
}

std::vector<Section> sections() {
  return {DataFields::section(), ArrayFields::section(), FolderFields::section(),
          ImageFields::section(), TableFields::section()};
}

}  // namespace lehr::data
