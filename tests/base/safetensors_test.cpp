// The reader refuses whatever does not add up, by name, and never reads past the end of a file.
#include "engine/base/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "engine/base/error.h"
#include "engine/base/random.h"
#include "tests/base/scratch.h"

namespace lehr {
namespace {

std::string with_length(const std::string& header, const std::string& data = "") {
  uint64_t size = header.size();
  std::string prefix(reinterpret_cast<const char*>(&size), 8);
  return prefix + header + data;
}

std::string refusal(const Scratch& scratch, const std::string& bytes) {
  write_file_durably(scratch / "f", bytes);
  try {
    SafetensorsFile file(scratch / "f");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kCheckpoint);
    EXPECT_EQ(e.where(), scratch / "f");
    return e.message();
  }
  return "";
}

}  // namespace

TEST(Safetensors, RoundTripsEveryDtypeShapeAndName) {
  Scratch scratch;
  std::string memory(256, '\0');
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<char>(i * 7);
  std::vector<TensorView> tensors;
  const char* dtypes[] = {"U8", "BOOL", "I8", "I16", "F16", "BF16", "I32", "F32", "I64", "F64"};
  for (const char* dtype : dtypes)
    tensors.push_back({std::string("a.\"ü\\") + dtype,
                       dtype,
                       {3, 1},
                       memory.data() + tensors.size(),
                       3 * dtype_bytes(dtype)});
  tensors.push_back({"scalar", "F32", {}, memory.data() + 100, 4});
  tensors.push_back({"empty", "F32", {0, 7}, memory.data(), 0});
  write_safetensors(scratch / "f", tensors, {{"format", "pt"}, {"k", "v\n"}});

  SafetensorsFile file(scratch / "f");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"k", "v\n"}}));
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const auto& tensor : tensors) {
    const TensorView* view = file.find(tensor.name);
    ASSERT_NE(view, nullptr) << tensor.name;
    EXPECT_EQ(view->dtype, tensor.dtype);
    EXPECT_EQ(view->shape, tensor.shape);
    ASSERT_EQ(view->bytes, tensor.bytes);
    EXPECT_EQ(std::memcmp(view->data, tensor.data, tensor.bytes), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % dtype_bytes(view->dtype), 0u)
        << "unaligned";
  }
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST(Safetensors, NoTensorsAtAllIsAFileToo) {
  Scratch scratch;
  write_safetensors(scratch / "f", {});
  EXPECT_TRUE(SafetensorsFile(scratch / "f").tensors().empty());
}

TEST(Safetensors, HostileHeadersAreRefused) {
  Scratch scratch;
  std::string x16(16, 'x');
  auto tensor = [](const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  std::string good = tensor("a", "F32", "[4]", "[0,16]");
  ASSERT_EQ(refusal(scratch, with_length("{" + good + "}", x16)), "");

  struct Case {
    std::string bytes, says;
  };
  std::string huge(8, '\xff');
  Case cases[] = {
      {"", "too short"},
      {"1234567", "too short"},
      {huge + "{}", "limit"},
      {with_length("{}").substr(0, 9), "beyond the end"},
      {with_length(""), "begin"},
      {with_length(" {}"), "begin"},
      {with_length("[]"), "begin"},
      {with_length("{" + good, x16), "not JSON"},
      {with_length("{" + good + "}}", x16), "not JSON"},
      {with_length(std::string("{}\0", 3)), "zero byte"},
      {with_length("{\"\xff\":1}"), "not JSON"},
      {with_length("{" + std::string(1 << 20, '[')), "not JSON"},
      {with_length("{\"a\":" + std::string(1 << 20, '[')), "where none belongs"},
      {with_length("{\"a\":{\"b\":{}}}"), "where none belongs"},
      {with_length("{\"a\":1}"), "where none belongs"},
      {with_length("{\"a\":null}"), "null"},
      {with_length("{\"a\":true}"), "boolean"},
      {with_length("{\"a\":\"text\"}"), "where none belongs"},
      {with_length("{\"a\":{}}"), "lacks"},
      {with_length("{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", x16), "lacks"},
      {with_length("{\"a\":{\"dtype\":\"F32\",\"extra\":[4]}}", x16), "unexpected key"},
      {with_length("{\"a\":{\"shape\":[4],\"shape\":[4]}}", x16), "unexpected key"},
      {with_length("{" + tensor("a", "F31", "[4]", "[0,16]") + "}", x16), "unknown dtype 'F31'"},
      {with_length("{" + tensor("a", "F32", "[-4]", "[0,16]") + "}", x16), "negative"},
      {with_length("{" + tensor("a", "F32", "[4.0]", "[0,16]") + "}", x16), "whole number"},
      {with_length("{" + tensor("a", "F32", "[[4]]", "[0,16]") + "}", x16), "where none belongs"},
      {with_length("{" + tensor("a", "F32", "[4]", "[0]") + "}", x16), "two numbers"},
      {with_length("{" + tensor("a", "F32", "[4]", "[0,16,32]") + "}", x16), "two numbers"},
      {with_length("{" + tensor("a", "F32", "[5]", "[0,16]") + "}", x16), "tensor 'a': shape"},
      {with_length("{" + tensor("a", "F32", "[4]", "[0,20]") + "}", x16), "tensor 'a' reaches"},
      {with_length("{" + tensor("a", "F32", "[4]", "[16,0]") + "}", x16), "tensor 'a' leaves"},
      {with_length("{" + tensor("a", "F32", "[3]", "[4,16]") + "}", x16), "tensor 'a' leaves"},
      // 2^32 x 2^32 x 4 is 0 in 64 bits
      {with_length("{" + tensor("a", "F32", "[4294967296,4294967296]", "[0,0]") + "}"), "shape"},
      {with_length("{" + tensor("a", "U8", "[18446744073709551615]", "[0,18446744073709551615]") +
                   "}"),
       "beyond"},
      {with_length("{" + tensor("a", "U8", "[18446744073709551616]", "[0,0]") + "}"),
       "whole number"},
      {with_length("{" + good + "," + good + "}", x16), "two entries named 'a'"},
      {with_length("{" + good + "," + tensor("b", "F32", "[4]", "[0,16]") + "}", x16),
       "'b' leaves"},
      {with_length("{" + good + "," + tensor("b", "F32", "[1]", "[20,24]") + "}", x16 + x16),
       "'b' leaves"},
      {with_length("{" + good + "}", x16 + "y"), "1 bytes too many"},
      {with_length("{" + good + "}", x16.substr(1)), "reaches beyond"},
      {with_length("{\"__metadata__\":{\"a\":1}}"), "where none belongs"},
      {with_length("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), "two metadata entries"},
  };
  for (const auto& one : cases) {
    std::string message = refusal(scratch, one.bytes);
    EXPECT_NE(message.find(one.says), std::string::npos)
        << one.bytes.substr(0, 120) << "\n  gave: " << message;
  }
}

TEST(Safetensors, AFileOfAnotherKindIsNamedWithItsRemedy) {
  Scratch scratch;
  struct Case {
    std::string bytes, says, remedy;
  };
  for (const Case& one : std::vector<Case>{
           {"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "Git LFS",
            "git lfs pull"},
           {"PK\3\4" + std::string(60, 'x'), "a zip archive", "safetensors"},
           {"GGUF" + std::string(60, '\0'), "a GGUF file", "safetensors"},
           {"\x89HDF\r\n\x1a\n" + std::string(60, '\0'), "an HDF5 file", "safetensors"},
           {"\x80\2}q\1" + std::string(60, 'x'), "a pickle", "safetensors"},
           {"\x1f\x8b" + std::string(60, 'x'), "a gzip file", "Unpack"},
           {"<!DOCTYPE html><html>not found</html>", "a page of the web", "Download"}}) {
    write_file_durably(scratch / "f", one.bytes);
    const std::string message = message_of([&] { SafetensorsFile file(scratch / "f"); });
    EXPECT_NE(message.find(one.says), std::string::npos) << message;
    EXPECT_NE(message.find("\n  "), std::string::npos) << message;
    EXPECT_NE(message.find(one.remedy, message.find('\n')), std::string::npos) << message;
  }
  EXPECT_NE(message_of([&] { SafetensorsFile file(scratch / "none"); }).find("missing"),
            std::string::npos);
}

TEST(Safetensors, DtypesThatOthersWriteAreShown) {
  Scratch scratch;
  const std::string header = R"({"a":{"dtype":"F8_E4M3","shape":[3,2],"data_offsets":[0,6]},)"
                             R"("b":{"dtype":"U16","shape":[1],"data_offsets":[6,8]},)"
                             R"("c":{"dtype":"F4","shape":[2,3],"data_offsets":[8,11]},)"
                             R"("d":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[11,14]}})";
  write_file_durably(scratch / "f", with_length(header, std::string(14, 'x')));
  const SafetensorsFile file(scratch / "f");
  EXPECT_EQ(file.find("a")->dtype, "F8_E4M3");
  EXPECT_EQ(file.find("d")->bytes, 3U);
  const std::string odd = R"({"c":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})";
  EXPECT_NE(refusal(scratch, with_length(odd, "x")).find("tensor 'c': shape"), std::string::npos);
}

TEST(Safetensors, PrefixesOfWrappersAreTakenOffWhereAllNamesHaveThem) {
  Scratch scratch;
  float x = 0;
  auto names = [&](const std::vector<std::string>& stored, const std::string& stripped) {
    std::vector<TensorView> views;
    for (const auto& name : stored) views.push_back({name, "F32", {1}, &x, 4});
    remove_tree(scratch / "f");
    write_safetensors(scratch / "f", views);
    SafetensorsFile file(scratch / "f");
    EXPECT_EQ(file.strip_wrappers(), stripped);
    std::vector<std::string> found;
    for (const auto& view : file.tensors()) {
      EXPECT_EQ(file.find(view.name), &view);
      found.push_back(view.name);
    }
    return found;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names({"module.a", "module.b.c"}, "module."), (Names{"a", "b.c"}));
  EXPECT_EQ(names({"_orig_mod.module.a"}, "_orig_mod.module."), (Names{"a"}));
  EXPECT_EQ(names({"module._orig_mod.a"}, "module._orig_mod."), (Names{"a"}));
  EXPECT_EQ(names({"module.a", "b"}, ""), (Names{"module.a", "b"}));
  EXPECT_EQ(names({}, ""), Names{});
}

TEST(Safetensors, FoldersPipesAndAbsentFilesAreRefused) {
  Scratch scratch;
  for (const std::string& path : {scratch.path(), scratch / "absent", std::string("/dev/zero")})
    EXPECT_THROW(SafetensorsFile file(path), Error) << path;
}

// every mutant either loads with views inside the file or is refused; the sanitizers watch the rest
TEST(Safetensors, MutantsNeverReachOutside) {
  Scratch scratch;
  std::string memory(64, 'm');
  write_safetensors(scratch / "f",
                    {{"a", "F32", {2, 3}, memory.data(), 24}, {"b", "U8", {5}, memory.data(), 5}});
  const std::string original = read_file(scratch / "f");
  Random random(1, Stream::kTest, 0);
  int loaded = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string mutant = original;
    for (uint32_t edits = 1 + random.below(3); edits > 0; --edits) {
      size_t at = random.below(mutant.size());
      if (random.below(4) == 0)
        mutant.erase(at, 1 + random.below(4));
      else if (random.below(4) == 0)
        mutant.insert(at, 1, "0123456789\"[]{},:"[random.below(17)]);
      else
        mutant[at] = static_cast<char>(random.bits());
      if (mutant.empty()) mutant = "x";
    }
    FILE* file = fopen((scratch / "f").c_str(), "wb");
    fwrite(mutant.data(), 1, mutant.size(), file);
    fclose(file);
    try {
      SafetensorsFile tensors(scratch / "f");
      ++loaded;
      uint64_t sum = 0;
      for (const auto& view : tensors.tensors())
        for (uint64_t k = 0; k < view.bytes; ++k) sum += static_cast<const char*>(view.data)[k];
      EXPECT_LT(sum, UINT64_MAX);
    } catch (const Error&) {
    }
  }
  EXPECT_GT(loaded, 100);  // flips in the data are not for this layer to see
}

TEST(Safetensors, WriterRefusesWhatItCouldNotRead) {
  float x[2] = {};
  EXPECT_THROW(safetensors_header({{"a", "F32", {2}, x, 4}}), Error);
  EXPECT_THROW(safetensors_header({{"a", "F32", {1}, x, 4}, {"a", "F32", {1}, x, 4}}), Error);
  EXPECT_THROW(safetensors_header({{"a", "C64", {1}, x, 8}}), Error);
  EXPECT_THROW(safetensors_header({{"__metadata__", "F32", {1}, x, 4}}), Error);
}

}  // namespace lehr
