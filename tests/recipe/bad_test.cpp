// Every mistake is told at its line, with what is wrong and what to write instead.
#include <gtest/gtest.h>

#include "engine/recipe/recipe.h"
#include "tests/recipe/bad_recipes.h"
#include "tests/recipe/sample.h"
#include "tests/recipe/support.h"

namespace lehr::recipe {
namespace {

class BadRecipes : public testing::TestWithParam<BadRecipe> {};

TEST_P(BadRecipes, AreToldInExactWords) {
  const auto& bad = GetParam();
  EXPECT_EQ(
      mistakes_of([&] { Recipe::parse(bad.text, "r.yaml", bad.overrides, sample::sections()); }),
      bad.mistakes);
}

INSTANTIATE_TEST_SUITE_P(All, BadRecipes, testing::ValuesIn(bad_recipes()),
                         [](const auto& info) { return info.param.name; });

// files beside each other, and the message for `r.yaml` with the folder written as @
std::string mistakes_in(const TemporaryFolder& folder, const std::string& path = "r.yaml") {
  auto text = mistakes_of([&] { Recipe::load(folder / path, {}, sample::sections()); });
  return replaced(text, folder.path() + "/", "@/");
}

TEST(BadFiles, AMissingRecipeNamesItsNeighbour) {
  TemporaryFolder folder;
  folder.write("mnist_cnn.yaml", "data: {train: x}\n");
  EXPECT_EQ(mistakes_in(folder, "minst_cnn.yaml"),
            "@/minst_cnn.yaml: cannot be opened: No such file or directory; did you mean "
            "@/mnist_cnn.yaml?");
}

TEST(BadFiles, AMissingBaseIsToldWhereItIsNamed) {
  TemporaryFolder folder;
  folder.write("base.yaml", "data: {train: x}\n");
  folder.write("r.yaml", "model: {nam: cnn}\nextends: bse.yaml\n");
  // the required field may be in the base: nothing is said about it
  EXPECT_EQ(mistakes_in(folder),
            "@/r.yaml:1:9: model.nam: unknown key; did you mean model.name?\n"
            "@/r.yaml:2:10: @/bse.yaml: cannot be opened: No such file or directory; did you mean "
            "@/base.yaml?");
}

TEST(BadFiles, MistakesInABaseAreToldThere) {
  TemporaryFolder folder;
  folder.write("sub/base.yaml", "data: {train: x}\n\noptimizer: {lr: x, lr: 1}\n");
  folder.write("r.yaml", "extends: sub/base.yaml\nmodel: {classes: 1}\n");
  EXPECT_EQ(mistakes_in(folder),
            "@/r.yaml:2:18: model.classes: must be at least 2, not '1'\n"
            "@/sub/base.yaml:3:17: optimizer.lr: must be a number, not 'x'\n"
            "@/sub/base.yaml:3:20: optimizer.lr: duplicate key, first on line 3; keep one of them");
}

TEST(BadFiles, ABaseMayNotExtendInACircle) {
  TemporaryFolder folder;
  folder.write("r.yaml", "extends: a.yaml\n");
  folder.write("a.yaml", "extends: sub/../b.yaml\n");
  folder.write("b.yaml", "extends: ./r.yaml\n");
  std::filesystem::create_directory(folder / "sub");
  EXPECT_EQ(mistakes_in(folder), "@/b.yaml:1:10: extends: './r.yaml' extends itself in a circle");
  folder.write("r.yaml", "extends: r.yaml\n");
  EXPECT_EQ(mistakes_in(folder), "@/r.yaml:1:10: extends: 'r.yaml' extends itself in a circle");
}

TEST(BadFiles, ABaseLiesInsideTheFolderOfTheRecipe) {
  TemporaryFolder folder;
  folder.write("secret.yaml", "data: {train: x}\n");
  folder.write("in/r.yaml", "extends: ../secret.yaml\n");
  EXPECT_EQ(
      mistakes_in(folder, "in/r.yaml"),
      "@/in/r.yaml:1:10: extends: '../secret.yaml' lies outside the folder of the recipe; keep "
      "the base beside the recipe, or below it");
  folder.write("in/r.yaml", "extends: " + (folder / "in/b.yaml") + "\n");
  EXPECT_EQ(mistakes_in(folder, "in/r.yaml"),
            "@/in/r.yaml:1:10: extends: must be relative to this file; keep the base beside the "
            "recipe, or below it");
  // a link leads out of it too
  std::filesystem::create_symlink(folder / "secret.yaml", folder / "in/link.yaml");
  folder.write("in/r.yaml", "extends: link.yaml\n");
  EXPECT_EQ(
      mistakes_in(folder, "in/r.yaml"),
      "@/in/r.yaml:1:10: extends: 'link.yaml' lies outside the folder of the recipe; keep the "
      "base beside the recipe, or below it");
  // a base further down is held to the folder of the recipe, not to its own
  folder.write("in/sub/base.yaml", "extends: ../../secret.yaml\n");
  folder.write("in/r.yaml", "extends: sub/base.yaml\n");
  EXPECT_EQ(mistakes_in(folder, "in/r.yaml"),
            "@/in/sub/base.yaml:1:10: extends: '../../secret.yaml' lies outside the folder of the "
            "recipe; keep the base beside the recipe, or below it");
}

TEST(BadFiles, ExtendsIsOnePlainPath) {
  TemporaryFolder folder;
  folder.write("r.yaml", "extends: [a.yaml]\ndata: {train: x}\n");
  EXPECT_EQ(mistakes_in(folder),
            "@/r.yaml:1:10: extends: must be the path of one recipe; write for example \"extends: "
            "base.yaml\"");
  folder.write("r.yaml", "extends: ${model.name}.yaml\ndata: {train: x}\n");
  EXPECT_EQ(mistakes_in(folder),
            "@/r.yaml:1:10: extends: cannot hold ${...}; write the path itself");
  folder.write("r.yaml", "extends: .\ndata: {train: x}\n");
  EXPECT_EQ(mistakes_in(folder), "@/r.yaml:1:10: @/: is a folder; name a recipe file in it");
}

TEST(BadFiles, AtMostFiftyMistakesAreToldAndTheRestCounted) {
  std::string text = "data: {train: x}\n";
  for (int i = 0; i < 80; ++i) text += "zzzzzz" + std::to_string(i) + ": {}\n";
  auto told = mistakes_of([&] { Recipe::parse(text, "r.yaml", {}, sample::sections()); });
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 50);
  EXPECT_NE(told.find("\nand 30 more mistakes"), std::string::npos);
}

}  // namespace
}  // namespace lehr::recipe
