#include "engine/data/fields.h"

#include "engine/data/dataset.h"

namespace lehr::data {
namespace {

const StringList kArrays = {"idx", "npy"}, kFolder = {"image_folder"}, kTable = {"csv"};
const StringList kImages = {"idx", "npy", "image_folder"};
const StringList kFiles = {"csv", "text"}, kText = {"text"}, kTokens = {"tokens"};
const StringList kWindows = {"text", "tokens"};

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
          "a folder per class, CSV tables, a text file, or the token shards that lehr tokenize "
          "writes.")
      .choices({"idx", "npy", "image_folder", "csv", "text", "tokens"})
      .required()
      .synonyms({"data.format", "data.type", "training.dataset"});
  d.field("name", &DataFields::name,
          "The name by which scripts/data fetches this set; messages about missing files say it.")
      .free_to_change();
  d.field("classes", &DataFields::classes,
          "Names of the classes in the order of their numbers; empty: the numbers, folders or "
          "labels found.")
      .synonyms({"data.class_names", "data.labels"});
  d.field("validation_fraction", &DataFields::validation_fraction,
          "Share of the training samples that becomes the validation set, where none is given; "
          "chosen by "
          "a hash of each sample, so that added samples move nobody. Of one text without "
          "documents, its last part.")
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
          "Training images: one folder per class, JPEG and PNG files in each, at any depth. Other "
          "files and hidden names are passed over, and the log says so.")
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
          "image_size. As in torchvision; EXIF orientation and transparency are not looked at.")
      .range(0, 8192)
      .unit("pixels")
      .when("source", kFolder);
  d.field("grey", &F::grey, "Reads images as one channel of luma instead of RGB.")
      .when("source", kFolder);
  d.field("bad_samples", &F::bad_samples,
          "Pictures that do not decode: stop saves the state before the step or evaluation that "
          "needs one, and ends; skip leaves them out, wherever they come up, and logs each.")
      .choices({"stop", "skip"})
      .free_to_change()
      .when("source", kFolder);
  d.field("max_bad_samples", &F::max_bad_samples,
          "More than so many bad pictures in one epoch, one evaluation or one input of `lehr "
          "predict` end the run under bad_samples: skip too.")
      .at_least(0)
      .unit("samples")
      .free_to_change()
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

Section FileFields::section() {
  auto d = data_section<FileFields>();
  using F = FileFields;
  d.field("train_file", &F::train_file,
          "Training rows (CSV with a header line) or training text; gzip or not.")
      .path()
      .required()
      .when("source", kFiles)
      .synonyms({"data.train_path", "data.csv", "data.text_file"});
  d.field("validation_file", &F::validation_file,
          "Validation rows or text; empty: validation_fraction of the training file.")
      .path()
      .when("source", kFiles)
      .synonyms({"data.val_file", "data.eval_file"});
  d.field("test_file", &F::test_file,
          "Test rows or text, looked at once, at the end; empty: test_fraction of the training "
          "rows, and no test text.")
      .path()
      .when("source", kFiles);
  return d.section();
}

Section TableFields::section() {
  auto d = data_section<TableFields>();
  using F = TableFields;
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
  d.field("missing_values", &F::missing_values,
          "Words that stand for a missing number, beside an empty cell and pandas' own (NA, null, "
          "None, nan and the like).")
      .when("source", kTable)
      .synonyms({"data.na_values", "data.null_values"});
  d.field("delimiter", &F::delimiter,
          "What separates the fields of a row: one character, or `tab`.")
      .when("source", kTable)
      .synonyms({"data.separator", "data.sep"});
  return d.section();
}

Section TextFields::section() {
  auto d = data_section<TextFields>();
  using F = TextFields;
  d.field("tokenizer", &F::tokenizer,
          "How text becomes numbers: one for each character of the training text, one for each "
          "byte, or byte-level BPE as read from tokenizer_file.")
      .choices({"char", "byte", "bpe"})
      .when("source", kText)
      .synonyms({"data.tokenizer_type", "data.encoding"});
  d.field(
       "tokenizer_file", &F::tokenizer_file,
       "The tokenizer: Hugging Face's tokenizer.json or a .tiktoken file of ranks (bpe), or what "
       "Lehr wrote; gzip or not.")
      .path()
      .when("source", kText)
      .synonyms({"data.tokenizer_path", "data.vocab_file"});
  d.field("split_pattern", &F::split_pattern,
          "How a .tiktoken file of ranks splits text into words; a tokenizer.json says it itself.")
      .choices({"gpt2", "llama3"})
      .when("source", kText);
  d.field("document_separator", &F::document_separator,
          "What separates documents in the files, e.g. \"\\n\\n\\n\"; an end-of-text token takes "
          "its place, and validation_fraction holds out whole documents. Empty: one text.")
      .when("source", kText)
      .synonyms({"data.separator_token", "data.eot"});
  return d.section();
}

Section TokensFields::section() {
  auto d = data_section<TokensFields>();
  using F = TokensFields;
  d.field("train_tokens", &F::train_tokens,
          "Token shards of training: folders that lehr tokenize wrote, or .tokens files.")
      .path()
      .required()
      .when("source", kTokens)
      .synonyms({"data.sources", "data.shards", "data.data_path"});
  d.field("validation_tokens", &F::validation_tokens,
          "Shards of validation; empty: those that the folders of train_tokens hold out, and where "
          "they hold out none, the last validation_fraction of each.")
      .path()
      .when("source", kTokens);
  d.field("test_tokens", &F::test_tokens, "Shards of the test, looked at once, at the end.")
      .path()
      .when("source", kTokens);
  d.field("weights", &F::weights,
          "Share of the samples that comes from each of train_tokens, e.g. [0.7, 0.3]; empty: by "
          "their sizes, each token once an epoch.")
      .when("source", kTokens)
      .synonyms({"data.mixture", "data.data_mix", "data.sampling_weights"});
  return d.section();
}

Section WindowFields::section() {
  auto d = data_section<WindowFields>();
  using F = WindowFields;
  d.field("context", &F::context, "Tokens of a sample: how far back the model can look.")
      .range(1, 1 << 24)
      .unit("tokens")
      .when("source", kWindows)
      .synonyms({"data.block_size", "data.seq_len", "data.seq_length", "data.sequence_length",
                 "data.max_seq_length", "data.max_seq_len", "data.context_length",
                 "training.seq_len", "training.block_size"});
  d.field("document_mask", &F::document_mask,
          "Keeps attention and targets within a document, where a sample holds parts of several.")
      .when("source", kWindows)
      .synonyms({"data.reset_attention_mask", "data.intra_document_masking"});
  return d.section();
}

std::vector<Section> sections() {
  return {DataFields::section(),  ArrayFields::section(),  FolderFields::section(),
          ImageFields::section(), FileFields::section(),   TableFields::section(),
          TextFields::section(),  TokensFields::section(), WindowFields::section()};
}

}  // namespace lehr::data
