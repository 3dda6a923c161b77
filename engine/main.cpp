// The program: command line in, exit code out. Only this file prints errors and exits, but for
// threads that end a process which cannot come back here (engine/base/leave.h).
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <optional>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/leave.h"
#include "engine/base/log.h"
#include "engine/base/output.h"
#include "engine/recipe/recipe.h"
#include "engine/run/check.h"
#include "engine/run/doctor.h"
#include "engine/run/equivalence.h"
#include "engine/run/fields.h"
#include "engine/run/finish.h"
#include "engine/run/generate.h"
#include "engine/run/launch.h"
#include "engine/run/plan.h"
#include "engine/run/recipes.h"
#include "engine/run/resume_test.h"
#include "engine/run/stop.h"
#include "engine/run/tokenize.h"
#include "engine/run/train.h"
#include "engine/run/verbs.h"
#include "engine/track/track.h"

namespace {

using namespace lehr;

track::Terminal* terminal = nullptr;

// The terminal, while it lives: a thread that is left behind says what it has to say without one.
class Console {
 public:
  Console() {
    terminal = &live_;
    log_through([](const std::string& line) { terminal->print(line); });
  }
  ~Console() { log_through(nullptr); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

 private:
  track::Terminal live_{2};
};

// what every verb may set
struct Options {
  std::string recipe, run, path, output, format = "artefact", bad_samples;
  std::vector<std::string> overrides, inputs;
  bool json = false, all = false, fresh = false, approximate = false, reference = false,
       debug = false;
  int kills = 3;
  int64_t ranks = 1;
  double timeout_s = 60;
};

CLI::App* verb(CLI::App& app, const char* name, const char* text, const char* example) {
  CLI::App* sub = app.add_subcommand(name, text);
  sub->footer(fmt::format("Example:\n  {}", example));
  return sub;
}

// one value per --set, so that the positional is never swallowed
void takes_overrides(CLI::App* sub, Options& o,
                     const char* text = "Data that have moved: --set data.train_file=new.csv") {
  sub->add_option("--set", o.overrides, text)->expected(1)->take_all();
}

void takes_recipe(CLI::App* sub, Options& o) {
  sub->add_option("recipe", o.recipe, "Recipe file (YAML)")->required();
  takes_overrides(sub, o, "Override a field: --set optimizer.lr=3e-4");
}

void takes_bad_samples(CLI::App* sub, Options& o) {
  sub->add_option("--bad-samples", o.bad_samples,
                  "Pictures that do not decode: stop or skip (data.bad_samples of its recipe)")
      ->check(CLI::IsMember({"stop", "skip"}));
}

void takes_doctors_options(CLI::App* sub, Options& o) {
  sub->add_flag("--json", o.json, "For machines");
  sub->add_option("--timeout", o.timeout_s, "Seconds to wait for a rank")
      ->check(CLI::Range(0.1, 86400.0));
}

// Where the runs of a proof go: beside those of the recipe.
std::string proof_folder(const Options& o, const char* verb) {
  const auto job = run::load_recipe(o.recipe, o.overrides).get<run::JobFields>();
  return join_path(job.output_dir, fmt::format("{}-{}", verb, getpid()));
}

// The whole program but for its process; called again in each rank that `lehr launch` starts.
int run_program(const std::vector<std::string>& words);

int dispatch(int argc, const char* const* argv, Options& o) {
  CLI::App app{
      "Lehr trains models from recipe files, survives any crash, and exports proved artefacts."};
  app.footer(
      "Exit codes: 0 done, 1 a fault of ours, 2 usage, 3 recipe, 4 data, 5 checkpoint or artefact, "
      "6 ranks,\n"
      "7 non-finite numbers, 75 stopped early with everything saved (run the same command again),\n"
      "130 interrupted twice.\n\nExample:\n  lehr train recipes/fashion_mnist_cnn.yaml");
  app.require_subcommand(1);
  app.add_flag("--debug", o.debug, "On an error, end with an abort and a stack trace");
  app.set_version_flag("--version", LEHR_VERSION);

  auto* train = verb(app, "train", "Train a recipe; the same command continues what was cut",
                     "lehr train recipes/fashion_mnist_cnn.yaml --set training.max_epochs=1");
  takes_recipe(train, o);
  train->add_option("--run", o.run, "Run folder (chosen under job.output_dir by default)");
  train->add_flag("--fresh", o.fresh, "Begin a new run even if one could continue");
  train->add_flag("--allow-approximate-resume", o.approximate,
                  "Continue although something that bits depend on differs");

  run::LaunchRequest launching;
  auto* launch = verb(app, "launch", "Train a recipe on several ranks of this node",
                      "lehr launch -n 4 recipes/fashion_mnist_cnn.yaml\n  lehr launch -n 4 doctor");
  takes_recipe(launch, o);
  launch->get_option("recipe")->required(false);  // doctor needs none
  launch->add_option("-n,--ranks", launching.ranks, "Processes")
      ->required()
      ->check(CLI::Range(1, 4096));
  launch->add_option("--run", o.run, "Run folder (chosen under job.output_dir by default)");
  launch->add_flag("--fresh", o.fresh, "Begin a new run even if one could continue");
  launch->add_flag("--allow-approximate-resume", o.approximate,
                   "Continue although something that bits depend on differs");

  auto* launch_doctor = launch->add_subcommand("doctor", "Whether these ranks work together");
  takes_doctors_options(launch_doctor, o);
  for (const char* option : {"recipe", "--set", "--run", "--fresh", "--allow-approximate-resume"})
    launch_doctor->excludes(launch->get_option(option));

  auto* check = verb(app, "check", "Check a recipe without training it",
                     "lehr check recipes/fashion_mnist_cnn.yaml");
  takes_recipe(check, o);
  check->add_flag("--json", o.json, "For machines");
  check->add_flag("--all", o.all, "Load every sample of every split too, and name the bad ones");
  check->add_option("--ranks", o.ranks, "Of how many it will be trained on")
      ->check(CLI::Range(1, 65536));

  auto* show =
      verb(app, "show", "Print the resolved recipe", "lehr show my.yaml --set optimizer.lr=3e-4");
  takes_recipe(show, o);

  auto* schema = verb(app, "schema", "Print the JSON Schema of recipe files",
                      "lehr schema > lehr.schema.json");
  schema->add_flag("--reference", o.reference, "The reference page (Markdown) instead");

  auto* recipes = verb(app, "recipes", "List the shipped recipes, or copy one",
                       "lehr recipes copy bike_sharing_mlp my.yaml");
  recipes->require_subcommand(1);
  auto* recipes_list = recipes->add_subcommand("list", "List the shipped recipes");
  auto* recipes_copy = recipes->add_subcommand("copy", "Copy a shipped recipe");
  recipes_copy->add_option("name", o.recipe, "Name from the list")->required();
  recipes_copy->add_option("file", o.output, "New file")->required();

  auto* resume = verb(app, "resume-test", "Prove that killed-and-continued equals uninterrupted",
                      "lehr resume-test recipes/bike_sharing_mlp.yaml --kills 5");
  takes_recipe(resume, o);
  resume->add_option("--kills", o.kills, "How often to kill -9")->check(CLI::Range(0, 100000));

  run::EquivalenceRequest comparing;
  auto* equivalence =
      verb(app, "equivalence", "Prove that ranks and micro-batches change rounding alone",
           "lehr equivalence recipes/bike_sharing_mlp.yaml --ranks 1,2,4 --accumulate 1,2,4");
  takes_recipe(equivalence, o);
  equivalence->add_option("--ranks", comparing.ranks, "Numbers of ranks")->delimiter(',');
  equivalence->add_option("--accumulate", comparing.accumulate, "Micro-batches of a rank's step")
      ->delimiter(',');
  equivalence->add_option("--steps", comparing.steps, "Length of each training")
      ->check(CLI::Range(1, 100000));

  auto* exports = verb(app, "export", "Make an artefact of a run or a checkpoint",
                       "lehr export runs/fashion_mnist_cnn-1 --output model");
  exports->add_option("source", o.path, "Run, checkpoint or Hugging Face folder")->required();
  exports->add_option("--format", o.format, "artefact, or huggingface for transformers")
      ->check(CLI::IsMember({"artefact", "huggingface"}));
  exports->add_option("--output", o.output, "New folder")->required();
  takes_overrides(exports, o);

  auto* predict = verb(app, "predict", "Predict with an artefact",
                       "lehr predict model --input images-idx3-ubyte.gz --output out.csv");
  predict->add_option("artefact", o.path, "Artefact folder")->required();
  predict->add_option("--input", o.inputs, "Input file(s), or folders of pictures")->required();
  predict->add_option("--output", o.output, "CSV file to write")->required();
  takes_bad_samples(predict, o);

  auto* evaluate =
      verb(app, "evaluate", "Evaluate an artefact on labelled data",
           "lehr evaluate model --data t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz");
  evaluate->add_option("artefact", o.path, "Artefact folder")->required();
  evaluate
      ->add_option(
          "--data", o.inputs,
          "Images then labels for IDX and npy, a folder with a sub-folder per class for pictures, "
          "one CSV for tables, a text or token shards for language models")
      ->required();
  evaluate->add_flag("--json", o.json, "For machines");
  takes_bad_samples(evaluate, o);

  auto* inspect = verb(app, "inspect", "Explain a checkpoint, a run or an artefact",
                       "lehr inspect runs/fashion_mnist_cnn-1/artefact");
  inspect->add_option("path", o.path, "Folder")->required();
  inspect->add_flag("--json", o.json, "For machines");

  auto* doctor =
      verb(app, "doctor",
           "Versions, devices, what is missing; under a launcher, whether its ranks work together",
           "lehr doctor\n  srun lehr doctor");
  takes_doctors_options(doctor, o);

  run::GenerateRequest generation;
  auto* generate = verb(app, "generate", "Write the text that follows a prompt",
                        "lehr generate runs/shakespeare_char-1 --prompt ROMEO: --tokens 300");
  generate
      ->add_option("source", generation.source, "Artefact, run, checkpoint or Hugging Face folder")
      ->required();
  generate->add_option("--prompt", generation.prompt, "Text to go on from");
  generate->add_option("--prompt-file", generation.prompt_file, "The same from a file");
  generate->add_option("--tokens", generation.tokens, "New tokens at most");
  generate->add_option("--temperature", generation.sampling.temperature,
                       "0: always the most probable token");
  generate->add_option("--top-k", generation.sampling.top_k,
                       "Only the k most probable tokens; 0: all");
  generate->add_option("--top-p", generation.sampling.top_p,
                       "Only the most probable tokens that together reach p");
  generate->add_option("--seed", generation.sampling.seed, "The same seed gives the same text");
  generate->add_option("--threads", generation.threads, "0: one a core")
      ->check(CLI::Range(0, 1024));
  takes_overrides(generate, o);

  run::TokenizeRequest tokenization;
  auto* tokenize = verb(app, "tokenize", "Make token shards of text files, for data.source: tokens",
                        "lehr tokenize books.txt.gz --tokenizer-file gpt2.tiktoken.gz --output "
                        "books --document-separator '\\n\\n\\n' --validation-fraction 0.01");
  tokenize->add_option("input", tokenization.inputs, "Text files, gzip or not")->required();
  tokenize->add_option("--output", tokenization.output, "Folder; the same command continues")
      ->required();
  tokenize->add_option("--tokenizer", tokenization.tokenizer, "bpe, byte or char")
      ->check(CLI::IsMember({"bpe", "byte", "char"}));
  tokenize->add_option("--tokenizer-file", tokenization.tokenizer_file,
                       "tokenizer.json, or a .tiktoken file of ranks");
  tokenize
      ->add_option("--split-pattern", tokenization.split_pattern,
                   "Of a .tiktoken file: gpt2, llama3")
      ->check(CLI::IsMember({"gpt2", "llama3"}));
  tokenize->add_option("--document-separator", tokenization.separator,
                       "What separates documents; none: each file is one");
  tokenize->add_option("--shard-tokens", tokenization.shard_tokens,
                       "A shard ends with the document that reaches this many tokens");
  tokenize->add_option("--threads", tokenization.threads, "0: one a core");
  tokenize->add_option("--validation-fraction", tokenization.validation_fraction,
                       "Share of the documents that is held out");

  try {
    app.parse(argc, argv);
    if (*launch && !*launch_doctor && o.recipe.empty()) throw CLI::RequiredError("recipe");
  } catch (const CLI::ParseError& e) {
    std::ostringstream help, complaint;
    const int code = app.exit(e, help, complaint);
    std::cerr << complaint.str();
    print_out(help.str());
    return code == 0 ? 0 : static_cast<int>(Code::kUsage);
  }

  if (*train) {
    run::TrainRequest request{o.recipe, o.overrides, {o.run, o.fresh}, o.approximate};
    return static_cast<int>(run::train(request, *terminal));
  }
  if (*launch) {
    launching.program = run_program;
    if (*launch_doctor) {
      std::vector<std::string> words{"doctor", "--timeout", fmt::format("{}", o.timeout_s)};
      if (o.json) words.emplace_back("--json");
      if (o.debug) words.insert(words.begin(), "--debug");
      return static_cast<int>(
          run::launch_once(launching.program, launching.ranks, words, *terminal));
    }
    launching.recipe = o.recipe;
    launching.overrides = o.overrides;
    launching.run = o.run;
    launching.fresh = o.fresh;
    launching.approximate = o.approximate;
    launching.debug = o.debug;
    return static_cast<int>(run::launch(launching, *terminal));
  }
  std::optional<run::LeaveWhenAsked> leaves;  // a tokenization says more of it
  if (!*tokenize) leaves.emplace();
  if (*check && o.all) {
    const auto report = run::check_samples(o.recipe, o.overrides, *terminal);
    print_out((o.json ? report.json : report.text) + "\n");
    if (report.bad > 0) return static_cast<int>(Code::kData);
  }
  if (*check && !(o.all && o.json)) {
    const auto report = run::check(run::load_recipe(o.recipe, o.overrides), o.ranks);
    print_out((o.json ? report.json : report.text) + "\n");
  } else if (*show) {
    print_out(run::load_recipe(o.recipe, o.overrides).resolved());
  } else if (*schema) {
    const auto sections = run::all_sections();
    print_out(o.reference ? recipe::reference(sections) : recipe::json_schema(sections));
  } else if (*recipes_list) {
    print_out(run::list_recipes());
  } else if (*recipes_copy) {
    run::copy_recipe(o.recipe, o.output);
    if (o.output != "-") print_out("copied to " + o.output + "\n");
  } else if (*resume) {
    run::ResumeTestRequest request;
    request.program = std::filesystem::read_symlink("/proc/self/exe").string();
    request.recipe = o.recipe;
    request.overrides = o.overrides;
    request.kills = o.kills;
    request.folder = proof_folder(o, "resume-test");
    return run::resume_test(request, *terminal) ? 0 : static_cast<int>(Code::kCheckpoint);
  } else if (*equivalence) {
    comparing.program = std::filesystem::read_symlink("/proc/self/exe").string();
    comparing.recipe = o.recipe;
    comparing.overrides = o.overrides;
    comparing.folder = proof_folder(o, "equivalence");
    return run::equivalence(comparing, *terminal) ? 0 : static_cast<int>(Code::kRanks);
  } else if (*exports) {
    run::export_run(o.path, o.output, *terminal, o.format, o.overrides);
  } else if (*predict) {
    run::predict(o.path, o.inputs, o.output, o.bad_samples, *terminal);
  } else if (*evaluate) {
    run::evaluate_artefact(o.path, o.inputs, o.json, o.bad_samples, *terminal);
  } else if (*inspect) {
    print_out(run::inspect(o.path, o.json));
  } else if (*generate) {
    generation.overrides = o.overrides;
    run::generate(generation, print_out);
    print_out("\n");
  } else if (*tokenize) {
    run::tokenize(tokenization, *terminal);
  } else if (*doctor) {
    const run::Diagnosis diagnosis = run::doctor(o.json, o.timeout_s);
    print_out(diagnosis.text);
    return static_cast<int>(diagnosis.code);
  }
  return 0;
}

int run_program(const std::vector<std::string>& words) {
  const Console console;
  Options options;
  try {
    std::vector<const char*> arguments{"lehr"};
    for (const auto& word : words) arguments.push_back(word.c_str());
    return dispatch(static_cast<int>(arguments.size()), arguments.data(), options);
  } catch (const Error& e) {
    if (options.debug) throw;
    log_error(e.what());
    tell_launcher(e.what());
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    if (options.debug) throw;
    log_error(fmt::format(
        "{}\n  this is a fault of Lehr's; run again with --debug for a stack trace", e.what()));
    tell_launcher(e.what());
    return static_cast<int>(Code::kInternal);
  }
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGXFSZ, SIG_IGN);  // a limit of files' sizes is an ordinary error of whoever writes
  return run_program({argv + 1, argv + argc});
}
