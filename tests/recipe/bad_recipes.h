// Recipes with one mistake each (and one with many), and the exact words that a user reads.
#pragma once

#include <string>
#include <vector>

namespace lehr::recipe {

struct BadRecipe {
  std::string name, text;
  std::vector<std::string> overrides;
  std::string mistakes;
};

inline const std::vector<BadRecipe>& bad_recipes() {
  using namespace std::string_literals;
  static const std::vector<BadRecipe> list = {
      {"AnUnknownKeyNearAKnownOne",
       "data: {train: x}\n"
       "optimizer:\n"
       "  lrr: 1\n",
       {},
       "r.yaml:3:3: optimizer.lrr: unknown key; did you mean optimizer.lr?"},
      {"ADeclaredSynonymInItsSection",
       "data: {train: x}\n"
       "optimizer: {step_size: 1}\n",
       {},
       "r.yaml:2:13: optimizer.step_size: unknown key; did you mean optimizer.lr?"},
      {"ADeclaredSynonymAtTheTop",
       "data: {train: x}\n"
       "step_size: 1\n",
       {},
       "r.yaml:2:1: step_size: unknown key; did you mean optimizer.lr?"},
      {"AWordOfAnotherSystemInTheSection",
       "data: {train: x}\n"
       "optimizer: {learning_rate: 1}\n",
       {},
       "r.yaml:2:13: optimizer.learning_rate: unknown key; did you mean optimizer.lr?"},
      {"AWordOfAnotherSystemAtTheTop",
       "data: {train: x}\n"
       "learning_rate: 1\n",
       {},
       "r.yaml:2:1: learning_rate: unknown key; did you mean optimizer.lr?"},
      {"AWordOfAnotherSystemInAnotherSection",
       "data: {train: x}\n"
       "training: {learning_rate: 1}\n",
       {},
       "r.yaml:2:12: training.learning_rate: unknown key; did you mean optimizer.lr?"},
      {"AWordWithTwoMeanings",
       "data: {train: x}\n"
       "training: {batch_size: 8}\n",
       {},
       "r.yaml:2:12: training.batch_size: unknown key; did you mean training.micro_batch_size or "
       "training.global_batch_size?"},
      {"AFieldNameInAnotherSection",
       "data: {train: x}\n"
       "model: {seed: 8}\n",
       {},
       "r.yaml:2:9: model.seed: unknown key; did you mean training.seed?"},
      {"AFieldNameAtTheTop",
       "data: {train: x}\n"
       "seed: 8\n",
       {},
       "r.yaml:2:1: seed: unknown key; did you mean training.seed?"},
      {"AnotherSpellingOfAField",
       "data: {train: x}\n"
       "training: {Micro-Batch-Size: 8}\n",
       {},
       "r.yaml:2:12: training.Micro-Batch-Size: unknown key; did you mean "
       "training.micro_batch_size?"},
      {"AnotherSpellingOfASection",
       "data: {train: x}\n"
       "Training: {seed: 8}\n",
       {},
       "r.yaml:2:1: Training: unknown section; did you mean training?"},
      {"AKeyThatNothingIsLike",
       "data: {train: x}\n"
       "optimizer: {zzzzzz: 8}\n",
       {},
       "r.yaml:2:13: optimizer.zzzzzz: unknown key; optimizer has name, lr, betas, freeze"},
      {"ASectionThatNothingIsLike",
       "data: {train: x}\n"
       "qqqqqqqq: {a: 8}\n",
       {},
       "r.yaml:2:1: qqqqqqqq: unknown section; the sections are model, data, loss, optimizer, "
       "training, checkpoint"},
      {"AMisspeltSection",
       "data: {train: x}\n"
       "optimzier: {lr: 8}\n",
       {},
       "r.yaml:2:1: optimzier: unknown section; did you mean optimizer?"},
      {"ASectionOfAnotherSystem",
       "data: {train: x}\n"
       "trainer: {seed: 8}\n",
       {},
       "r.yaml:2:1: trainer: unknown section; did you mean training?"},
      {"AMisspeltExtends",
       "data: {train: x}\n"
       "extend: base.yaml\n",
       {},
       "r.yaml:2:1: extend: unknown key; did you mean extends?"},
      {"AMergeKey",
       "data: {train: x}\n"
       "training: &t {seed: 1}\n"
       "optimizer: {<<: *t}\n",
       {},
       "r.yaml:3:13: optimizer.<<: unknown key; to inherit, write extends: FILE at the top"},
      {"ADottedKeyAtTheTop",
       "data: {train: x}\n"
       "optimizer.lr: 1\n",
       {},
       "r.yaml:2:1: optimizer.lr: unknown key; nest it as \"optimizer: {lr: ...}\""},
      {"ADottedKeyInASection",
       "data: {train: x, augment.flip: true}\n",
       {},
       "r.yaml:1:18: data.augment.flip: unknown key; nest it as \"augment: {flip: ...}\""},
      {"AnUnknownNestedKey",
       "data:\n"
       "  train: x\n"
       "  augment:\n"
       "    crop: {padd: 1}\n"
       "    flipp: true\n",
       {},
       "r.yaml:4:12: data.augment.crop.padd: unknown key; did you mean data.augment.crop.pad?\n"
       "r.yaml:5:5: data.augment.flipp: unknown key; did you mean data.augment.flip?"},
      {"AScalarWhereKeysBelong",
       "data: {train: x, augment: true}\n",
       {},
       "r.yaml:1:27: data.augment: must be a mapping of keys"},
      {"ASectionGivenAsItsName",
       "data: {train: x}\n"
       "optimizer: adamw\n",
       {},
       "r.yaml:2:12: optimizer: must be a mapping of keys; did you mean optimizer.name: adamw?"},
      {"ASectionGivenAsAList",
       "data: {train: x}\n"
       "training:\n"
       "  - seed: 1\n",
       {},
       "r.yaml:3:3: training: must be a mapping of keys"},
      {"ADuplicateKey",
       "data: {train: x}\n"
       "optimizer:\n"
       "  lr: 1\n"
       "  name: sgd\n"
       "  lr: 2\n",
       {},
       "r.yaml:5:3: optimizer.lr: duplicate key, first on line 3; keep one of them"},
      {"ADuplicateSection",
       "data: {train: x}\n"
       "optimizer: {lr: 1}\n"
       "optimizer: {lr: 2}\n",
       {},
       "r.yaml:3:1: optimizer: duplicate key, first on line 2; keep one of them"},
      {"ADuplicateNestedKey",
       "data:\n"
       "  train: x\n"
       "  augment:\n"
       "    flip: true\n"
       "    flip: false\n",
       {},
       "r.yaml:5:5: data.augment.flip: duplicate key, first on line 4; keep one of them"},
      {"AWordForABoolean",
       "data: {train: x}\n"
       "training: {deterministic: yes}\n",
       {},
       "r.yaml:2:27: training.deterministic: must be true or false, not 'yes'; write true"},
      {"ACapitalBoolean",
       "data: {train: x}\n"
       "training: {deterministic: False}\n",
       {},
       "r.yaml:2:27: training.deterministic: must be true or false, not 'False'; write false"},
      {"AQuotedBoolean",
       "data: {train: x}\n"
       "training: {deterministic: 'true'}\n",
       {},
       "r.yaml:2:27: training.deterministic: must be true or false, not the text \"true\"; write "
       "true"},
      {"AFractionForAWholeNumber",
       "data: {train: x}\n"
       "training: {seed: 1.5}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '1.5'"},
      {"AnExponentForAWholeNumber",
       "data: {train: x}\n"
       "training: {seed: 1e3}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '1e3'; write 1000"},
      {"UnderscoresInANumber",
       "data: {train: x}\n"
       "training: {seed: 1_000}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '1_000'; write 1000"},
      {"HexadecimalForAWholeNumber",
       "data: {train: x}\n"
       "training: {seed: 0x10}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '0x10'; write 16"},
      {"AQuotedFloat",
       "data: {train: x}\n"
       "training: {seed: \"7\"}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not the text \"7\"; remove the quotes"},
      {"ANumberBeyond64Bits",
       "data: {train: x}\n"
       "training: {seed: 9223372036854775808}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '9223372036854775808'; it does not "
       "fit into 64 bits"},
      {"TextForANumber",
       "data: {train: x}\n"
       "optimizer: {lr: fast}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not 'fast'"},
      {"NotANumberForANumber",
       "data: {train: x}\n"
       "optimizer: {lr: nan}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not 'nan'"},
      {"AQuotedNumber",
       "data: {train: x}\n"
       "optimizer: {lr: \"0.1\"}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not the text \"0.1\"; remove the quotes"},
      {"AKeyThatIsTooLong",
       "data: {train: x}\n" + std::string(129, 'k') + ": 1\n",
       {},
       "r.yaml:2:1: a key of more than 128 bytes; is this a recipe?"},
      {"NotANumberInYamlsWord",
       "data: {train: x}\n"
       "optimizer: {lr: .nan}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not '.nan'"},
      {"ANumberBeyondDoubles",
       "data: {train: x}\n"
       "optimizer: {lr: 1e999}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not '1e999'"},
      {"NullForAFieldThatHasNone",
       "data: {train: x}\n"
       "training: {seed: ~}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not '~'"},
      {"NothingForANumber",
       "data: {train: x}\n"
       "training:\n"
       "  seed:\n",
       {},
       "r.yaml:3:8: training.seed: has no value; write a whole number, or remove the key"},
      {"NothingForAText",
       "data: {train: x}\n"
       "model:\n"
       "  init_from:\n",
       {},
       "r.yaml:3:13: model.init_from: has no value; write \"\" for an empty text, or remove the "
       "key"},
      {"AListForANumber",
       "data: {train: x}\n"
       "optimizer: {lr: [1]}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not a list; remove the brackets or the dash"},
      {"AMappingForANumber",
       "data: {train: x}\n"
       "optimizer: {lr: {a: 1}}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be a number, not a mapping"},
      {"AScalarForAList",
       "data: {train: x}\n"
       "optimizer: {betas: 0.9}\n",
       {},
       "r.yaml:2:20: optimizer.betas: must be a list of numbers, not '0.9'; write [0.9]"},
      {"AWrongItemOfAList",
       "data: {train: x}\n"
       "optimizer: {betas: [0.9, x, 2]}\n",
       {},
       "r.yaml:2:26: optimizer.betas: item 2 must be a number, not 'x'\n"
       "r.yaml:2:29: optimizer.betas: item 3 must be from 0 to 1, not '2'"},
      {"AListInAList",
       "data: {train: x}\n"
       "optimizer: {freeze: [[a]]}\n",
       {},
       "r.yaml:2:22: optimizer.freeze: item 1 must be text, not a list; remove the brackets or the "
       "dash"},
      {"AWrongValueOfAMapping",
       "data: {train: x}\n"
       "loss: {class_weights: {cat: 0, dog: x}}\n",
       {},
       "r.yaml:2:29: loss.class_weights: 'cat' must be above 0, not '0'\n"
       "r.yaml:2:37: loss.class_weights: 'dog' must be a number, not 'x'"},
      {"AListForAMapping",
       "data: {train: x}\n"
       "loss: {class_weights: [1, 2]}\n",
       {},
       "r.yaml:2:23: loss.class_weights: must be a mapping of names to numbers, not a list; write "
       "for example {cat: 1, dog: 2.5}"},
      {"ANumberOutOfARange",
       "data: {train: x, validation_fraction: 1.5}\n",
       {},
       "r.yaml:1:39: data.validation_fraction: must be from 0 to 1, not '1.5'"},
      {"ANumberBelowAMinimum",
       "data: {train: x}\n"
       "training: {micro_batch_size: 0}\n",
       {},
       "r.yaml:2:30: training.micro_batch_size: must be at least 1, not '0'"},
      {"ANumberAtAnExclusiveMinimum",
       "data: {train: x}\n"
       "optimizer: {lr: 0}\n",
       {},
       "r.yaml:2:17: optimizer.lr: must be above 0, not '0'"},
      {"ADurationOfNoUnit",
       "data: {train: x}\n"
       "checkpoint: {interval: 5 parsecs}\n",
       {},
       "r.yaml:2:24: checkpoint.interval: must be a duration in steps, epochs, samples, tokens or "
       "time, not '5 parsecs'; write for example 500 (steps), 2ep, 10000samples, 1e9tok or 30min"},
      {"ATimeWithoutAUnit",
       "data: {train: x}\n"
       "training: {max_time: 500}\n",
       {},
       "r.yaml:2:22: training.max_time: must be a time, not '500'; a bare number means steps; "
       "write "
       "500s, or min, h or d"},
      {"ALengthWhereATimeIsWanted",
       "data: {train: x}\n"
       "training: {max_time: 2ep}\n",
       {},
       "r.yaml:2:22: training.max_time: must be a time, not '2ep'; write for example 30min"},
      {"ATimeWhereALengthIsWanted",
       "data: {train: x}\n"
       "checkpoint: {report: 30s}\n",
       {},
       "r.yaml:2:22: checkpoint.report: must be a duration in steps or epochs, not '30s'; clocks "
       "differ: write for example 500 (steps) or 2ep"},
      {"AUnitThatItsFieldDoesNotTake",
       "data: {train: x}\n"
       "checkpoint: {drops: [5, 2ep, 1h]}\n",
       {},
       "r.yaml:2:30: checkpoint.drops: item 3 must be a duration in steps, epochs, samples or "
       "tokens, not '1h'; write for example 500 (steps), 2ep, 10000samples or 1e9tok"},
      {"APathThatIsToBeAName",
       "data: {train: x}\n"
       "checkpoint: {run: ../up, file: a/b}\n",
       {},
       "r.yaml:2:19: checkpoint.run: must be a plain name, or names with / between, and '../up' "
       "begins a name with `.`\n"
       "r.yaml:2:32: checkpoint.file: must be a plain file name, and 'a/b' holds a slash"},
      {"ABlankAtTheEndOfANumber",
       "data: {train: x}\n",
       {"optimizer.lr=1e-3 "},
       "--set optimizer.lr: must be a number, not '1e-3 '; remove the blank at its end"},
      {"HalfOfAChoice",
       "data: {train: x}\n"
       "training: {precision: fp16}\n"
       "optimizer: {name: AdamW}\n",
       {"training.precision=bf16"},
       "r.yaml:3:19: optimizer.name: must be adamw or sgd, not 'AdamW'; did you mean adamw?\n"
       "--set training.precision: must be fp32, bf16-mixed, fp16-mixed or bf16-master, not 'bf16'; "
       "did you mean bf16-mixed or bf16-master?"},
      {"AFieldThatWasRenamed",
       "data: {train: x}\n"
       "training: {report_every: 5}\n",
       {},
       "r.yaml:2:12: training.report_every: unknown key; it is called checkpoint.report now"},
      {"AFieldThatIsGone",
       "data: {train: x}\n"
       "checkpoint: {colour: red}\n",
       {},
       "r.yaml:2:14: checkpoint.colour: is gone since 0.2: everything is grey; remove it"},
      {"ADurationOfZero",
       "data: {train: x}\n"
       "checkpoint: {interval: 0}\n",
       {},
       "r.yaml:2:24: checkpoint.interval: must be above 0, not '0'"},
      {"AHugeDuration",
       "data: {train: x}\n"
       "checkpoint: {interval: 1e308d}\n",
       {},
       "r.yaml:2:24: checkpoint.interval: must be a duration in steps, epochs, samples, tokens or "
       "time, not '1e308d'; write for example 500 (steps), 2ep, 10000samples, 1e9tok or 30min"},
      {"AValueNearAChoice",
       "data: {train: x}\n"
       "optimizer: {name: adam}\n",
       {},
       "r.yaml:2:19: optimizer.name: must be adamw or sgd, not 'adam'; did you mean adamw?"},
      {"AValueNearNoChoice",
       "data: {train: x}\n"
       "model: {name: resnet}\n",
       {},
       "r.yaml:2:15: model.name: must be logistic, mlp or cnn, not 'resnet'"},
      {"AMissingRequiredField",
       "data: {drop_last: true}\n",
       {},
       "r.yaml:1:1: data.train: is required and not set; the training file"},
      {"AMissingRequiredSection",
       "model: {name: cnn}\n",
       {},
       "r.yaml: data.train: is required and not set; the training file"},
      {"AFieldOfAnotherModel",
       "data: {train: x}\n"
       "model:\n"
       "  name: logistic\n"
       "  hidden: 4\n",
       {},
       "r.yaml:4:3: model.hidden: belongs to model.name mlp or cnn, not logistic; remove it"},
      {"TheTypeOfAnotherModel",
       "data: {train: x}\n"
       "model:\n"
       "  name: cnn\n"
       "  hidden: [4]\n",
       {},
       "r.yaml:4:11: model.hidden: must be a whole number, not a list; remove the brackets or the "
       "dash"},
      {"NothingAboutFieldsOfAMisspeltModel",
       "data: {train: x}\n"
       "model: {name: cmm, hidden: x}\n",
       {},
       "r.yaml:2:15: model.name: must be logistic, mlp or cnn, not 'cmm'"},
      {"AReferenceToAnUnknownKey",
       "data: {train: x}\n"
       "loss: {note: \"${optimizer.learning_rate}\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${optimizer.learning_rate}' refers to an unknown key; did you "
       "mean optimizer.lr?"},
      {"AReferenceToAnUnusedKey",
       "data: {train: x}\n"
       "model: {name: logistic}\n"
       "loss: {note: \"${model.hidden}\"}\n",
       {},
       "r.yaml:3:14: loss.note: '${model.hidden}' belongs to model.name mlp or cnn, not logistic"},
      {"AReferenceWithoutASection",
       "data: {train: x}\n"
       "loss: {note: \"${HOME}\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${HOME}' is not a reference; write ${section.key}, or $${ for a "
       "plain ${"},
      {"AReferenceWithoutAnEnd",
       "data: {train: x}\n"
       "loss: {note: \"${model.name\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${model.name' has no closing brace; write ${section.key}, or $${ "
       "for a plain ${"},
      {"AReferenceOfAnotherLanguage",
       "data: {train: x}\n"
       "loss: {note: \"${oc.env:HOME}\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${oc.env:HOME}' is not a reference; write ${section.key}, or $${ "
       "for a plain ${"},
      {"AReferenceToItself",
       "data: {train: x}\n"
       "loss: {note: \"${loss.note}\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${loss.note}' refers to itself: loss.note -> loss.note"},
      {"ACircleOfReferences",
       "data: {train: x}\n"
       "loss: {note: \"a${model.init_from}\"}\n"
       "model: {init_from: \"${loss.note}b\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${model.init_from}' refers to itself: model.init_from -> "
       "loss.note -> model.init_from"},
      {"ACircleThroughACondition",
       "data: {train: x}\n"
       "model:\n"
       "  name: ${model.hidden}\n",
       {},
       "r.yaml:3:3: model.name: refers to itself: model.name -> model.hidden -> model.name"},
      {"AListInsideAText",
       "data: {train: x}\n"
       "loss: {note: \"a${optimizer.betas}\"}\n",
       {},
       "r.yaml:2:14: loss.note: '${optimizer.betas}' is not a single value; let it stand alone"},
      {"AListInsideAList",
       "data: {train: x}\n"
       "optimizer: {freeze: [\"${optimizer.betas}\"]}\n",
       {},
       "r.yaml:2:22: optimizer.freeze: '${optimizer.betas}' is not a single value"},
      {"AReferenceOfTheWrongType",
       "data: {train: x}\n"
       "training: {seed: \"${model.name}\"}\n",
       {},
       "r.yaml:2:18: training.seed: must be a whole number, not the text \"mlp\""},
      {"AnOverrideWithoutAValue",
       "data: {train: x}\n",
       {"optimizer.lr"},
       "--set optimizer.lr: not of the form section.key=value; for example --set training.seed=1"},
      {"AnOverrideOfASection",
       "data: {train: x}\n",
       {"optimizer=adamw"},
       "--set optimizer: not of the form section.key=value; for example --set training.seed=1"},
      {"AnOverrideOfAnUnknownKey",
       "data: {train: x}\n",
       {"optimizer.lrr=1"},
       "--set optimizer.lrr: unknown key; did you mean optimizer.lr?"},
      {"AnOverrideOfTheWrongType",
       "data: {train: x}\n",
       {"optimizer.lr=fast", "training.seed=1.5"},
       "--set optimizer.lr: must be a number, not 'fast'\n"
       "--set training.seed: must be a whole number, not '1.5'"},
      {"AnOverrideWithoutAnEnd",
       "data: {train: x}\n",
       {"optimizer.betas=[1, 2"},
       "--set optimizer.betas: not valid YAML: did not find expected ',' or ']' while parsing a "
       "flow sequence that begins on line 1"},
      {"AnOverrideOfTheWrongModel",
       "data: {train: x}\n"
       "model: {name: cnn, hidden: 4}\n",
       {"model.name=logistic"},
       "r.yaml:2:20: model.hidden: belongs to model.name mlp or cnn, not logistic; remove it "
       "(model.name comes from --set model.name)"},
      {"ExtendsInAText",
       "extends: base.yaml\n",
       {},
       "r.yaml:1:10: extends: only a recipe file can extend another one; remove it"},
      {"AListAsARecipe",
       "- a\n"
       "- b\n",
       {},
       "r.yaml:1:1: a recipe is a mapping of sections; write for example \"model: {name: cnn}\""},
      {"AScalarAsARecipe",
       "hello\n",
       {},
       "r.yaml:1:1: a recipe is a mapping of sections; write for example \"model: {name: cnn}\""},
      {"AFileOfComments",
       "# nothing\n",
       {},
       "r.yaml: holds no recipe; a recipe holds sections like model and data"},
      {"NothingAtAll",
       "",
       {},
       "r.yaml: holds no recipe; a recipe holds sections like model and data"},
      {"ASecondDocument",
       "data: {train: x}\n"
       "---\n"
       "data: {train: x}\n",
       {},
       "r.yaml:2:1: a second document starts here; a recipe is one document: remove the ---"},
      {"ATag",
       "data: {train: !!str x}\n",
       {},
       "r.yaml:1:15: tags like !!str are not part of a recipe; remove the tag"},
      {"ATabForIndentation",
       "data:\n"
       "\011train: x\n",
       {},
       "r.yaml:2:1: not valid YAML: found character that cannot start any token while scanning for "
       "the next token; indent with spaces, not tabs"},
      {"AMissingBracket",
       "data: {train: x\n"
       "optimizer: {lr: 1}\n",
       {},
       "r.yaml:2:10: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping "
       "that begins on line 1"},
      {"AReservedCharacter",
       "data: {train: @x}\n",
       {},
       "r.yaml:1:15: not valid YAML: found character that cannot start any token while scanning "
       "for the next token; put the value in quotes"},
      {"AKeyThatIsAList",
       "? [a]\n"
       ": 1\n",
       {},
       "r.yaml:1:3: a key must be plain text"},
      {"AKeyWithAnAnchor",
       "&a data: {train: x}\n",
       {},
       "r.yaml:1:1: a key cannot have an anchor; remove the &"},
      {"AnUnknownAlias", "data: {train: *x}\n", {}, "r.yaml:1:15: unknown alias *x"},
      {"AnAliasInsideItself",
       "data: &d {train: *d}\n",
       {},
       "r.yaml:1:18: alias *d stands inside itself"},
      {"AnEscapedNul",
       "data: {train: \"a\\0b\"}\n",
       {},
       "r.yaml:1:15: the text holds a NUL character; remove the \\0"},
      {"ANulByte",
       "data: {train: x}\n"s
       "#\000\n",
       {},
       "r.yaml:2:2: character U+0000 is not allowed; is this a text file?"},
      {"AControlCharacter",
       "data: {train: \"\303\244\007\"}\n",
       {},
       "r.yaml:1:17: character U+0007 is not allowed; remove it, or escape it in \"\""},
      {"BytesThatAreNotUtf8",
       "data:\n"
       "  train: \303\244\377\n",
       {},
       "r.yaml:2:11: byte 0xff is not UTF-8; save the file as UTF-8"},
      {"AnOverlongSequence",
       "data: {train: \300\257}\n",
       {},
       "r.yaml:1:15: byte 0xc0 is not UTF-8; save the file as UTF-8"},
      {"ASurrogate",
       "data: {train: \355\240\200}\n",
       {},
       "r.yaml:1:15: byte 0xed is not UTF-8; save the file as UTF-8"},
      {"ACutSequence",
       "data: {train: x} #\342\202",
       {},
       "r.yaml:1:19: byte 0xe2 is not UTF-8; save the file as UTF-8"},
      {"AllMistakesAtOnce",
       "model: {name: cmm}\n"
       "optimizer:\n"
       "  lr: -1\n"
       "  bets: [1]\n"
       "  lr: 3\n"
       "trainin: {}\n"
       "training: {seed: 1.5}\n",
       {"loss.note2=1"},
       "r.yaml: data.train: is required and not set; the training file\n"
       "r.yaml:1:15: model.name: must be logistic, mlp or cnn, not 'cmm'\n"
       "r.yaml:3:7: optimizer.lr: must be above 0, not '-1'\n"
       "r.yaml:4:3: optimizer.bets: unknown key; did you mean optimizer.betas?\n"
       "r.yaml:5:3: optimizer.lr: duplicate key, first on line 3; keep one of them\n"
       "r.yaml:6:1: trainin: unknown section; did you mean training?\n"
       "r.yaml:7:18: training.seed: must be a whole number, not '1.5'\n"
       "--set loss.note2: unknown key; did you mean loss.note?"},
  };
  return list;
}

}  // namespace lehr::recipe
