// Sections with a field of every type and of every kind of condition, for the tests and the fuzzer.
#pragma once

#include "engine/base/fields.h"

namespace lehr::recipe::sample {

struct Model {
  std::string name = "mlp";
  std::string init_from;
  int64_t classes = 10;
  static Section section() {
    Declare<Model> d("model", "What is computed.");
    d.field("name", &Model::name, "The architecture.").choices({"logistic", "mlp", "cnn"});
    d.field("init_from", &Model::init_from, "Weights to start from.").path();
    d.field("classes", &Model::classes, "Number of classes.").at_least(2);
    return d.section();
  }
};

struct Mlp {
  IntList hidden = {128};
  double dropout = 0;
  static Section section() {
    Declare<Mlp> d("model", "");
    d.field("hidden", &Mlp::hidden, "Widths of the hidden layers.")
        .at_least(1)
        .synonyms({"hidden_sizes"})
        .when("name", {"mlp"});
    d.field("dropout", &Mlp::dropout, "Share of units set to zero.")
        .range(0, 1)
        .when("name", {"mlp"});
    return d.section();
  }
};

struct Cnn {
  int64_t hidden = 32;
  double dropout = 0.25;
  static Section section() {
    Declare<Cnn> d("model", "");
    d.field("hidden", &Cnn::hidden, "Channels.").at_least(1).unit("channels").when("name", {"cnn"});
    d.field("dropout", &Cnn::dropout, "Share of channels set to zero.")
        .range(0, 1)
        .when("name", {"cnn"});
    return d.section();
  }
};

struct Data {
  std::string train;
  StringList extra;
  double validation_fraction = 0.1;
  bool drop_last = false;
  int64_t pad = 2;
  bool flip = true;
  std::string crop_mode = "none";
  std::optional<int64_t> limit;
  static Section section() {
    Declare<Data> d("data", "What is learnt from.");
    d.field("train", &Data::train, "The training file.").path().required();
    d.field("extra", &Data::extra, "More files.").path();
    d.field("validation_fraction", &Data::validation_fraction, "Share held out.").range(0, 1);
    d.field("drop_last", &Data::drop_last, "Leave out an epoch's short last batch.");
    d.field("augment.crop.pad", &Data::pad, "Border around an image.").at_least(0).unit("pixels");
    d.field("augment.flip", &Data::flip, "Mirror half of the images.");
    d.field("augment.crop.mode", &Data::crop_mode, "What fills the border.");
    d.field("limit", &Data::limit, "Use only so many samples.").at_least(1).free_to_change();
    return d.section();
  }
};

struct Loss {
  FloatMap class_weights;
  std::optional<std::string> note;
  static Section section() {
    Declare<Loss> d("loss", "What is minimised.");
    d.field("class_weights", &Loss::class_weights, "Weight of each class.").above(0);
    d.field("note", &Loss::note, "A remark | for people.");
    return d.section();
  }
};

struct Optimizer {
  std::string name = "adamw";
  double lr = 1e-3;
  FloatList betas = {0.9, 0.999};
  StringList freeze;
  static Section section() {
    Declare<Optimizer> d("optimizer", "How the weights move.");
    d.field("name", &Optimizer::name, "The rule.").choices({"adamw", "sgd"});
    d.field("lr", &Optimizer::lr, "Step size after warm-up.").above(0).synonyms({"step_size"});
    d.field("betas", &Optimizer::betas, "Decay of the moments.").range(0, 1);
    d.field("freeze", &Optimizer::freeze, "Parameters that keep their values.");
    return d.section();
  }
};

struct Training {
  std::optional<Duration> max_time;
  int64_t seed = 0;
  int64_t micro_batch_size = 32, global_batch_size = 32;
  std::optional<double> max_grad_norm;
  bool deterministic = false;
  std::string precision = "fp32";
  static Section section() {
    Declare<Training> d("training", "The loop.");
    d.field("max_time", &Training::max_time, "When to end.").units(kTime).free_to_change();
    d.field("seed", &Training::seed, "Start of all randomness.").at_least(0);
    d.field("micro_batch_size", &Training::micro_batch_size, "Samples at once.").at_least(1);
    d.field("global_batch_size", &Training::global_batch_size, "Samples a step.").at_least(1);
    d.field("max_grad_norm", &Training::max_grad_norm, "Longest gradient.").above(0);
    d.field("deterministic", &Training::deterministic, "Same bits every time.");
    d.field("precision", &Training::precision, "What is computed in.")
        .choices({"fp32", "bf16-mixed", "fp16-mixed", "bf16-master"});
    return d.section();
  }
};

struct Checkpoint {
  Duration interval = {500, Duration::Unit::kSteps};
  std::string folder = "checkpoints";
  Duration report = {10, Duration::Unit::kSteps};
  DurationList drops;
  std::string run, file = "trace.json";
  static Section section() {
    Declare<Checkpoint> d("checkpoint", "What survives.");
    d.field("interval", &Checkpoint::interval, "Between two saves.")
        .above(0)
        .units(kLengthsOrTime)
        .free_to_change();
    d.field("report", &Checkpoint::report, "Between two reports.")
        .units({Duration::Unit::kSteps, Duration::Unit::kEpochs}, "clocks differ")
        .was("training.report_every")
        .was("checkpoint.report.every");
    d.field("drops", &Checkpoint::drops, "When to drop.").units(kLengths).above(0);
    d.field("run", &Checkpoint::run, "Name of the run.").names(NameRule::kNested);
    d.field("file", &Checkpoint::file, "Name of the file.").names(NameRule::kPlain);
    d.gone("colour", "since 0.2: everything is grey");
    d.field("folder", &Checkpoint::folder, "Where they go.").path().free_to_change();
    return d.section();
  }
};

inline std::vector<Section> sections() {
  return {Model::section(), Mlp::section(),       Cnn::section(),      Data::section(),
          Loss::section(),  Optimizer::section(), Training::section(), Checkpoint::section()};
}

}  // namespace lehr::recipe::sample
