// What a model.pt may hold, and hostile ones that stop before anything of them runs.
#include "engine/export/scan.h"

#include <ATen/core/interned_strings.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <zlib.h>

#include "engine/export/archive.h"
#include "engine/export/operators.h"
#include "engine/export/pickle.h"
#include "engine/export/trace.h"
#include "engine/export/verify.h"
#include "tests/export/toy.h"

namespace lehr::artefact {
namespace {

using namespace testing;

constexpr char kGood[] = R"(class Model(Module):
  __parameters__ = ["weight", ]
  __buffers__ = ["mean", ]
  weight : Tensor
  mean : Tensor
  training : bool
  count : Final[int] = 3
  names : List[str]
  __annotations__["0"] = __torch__.Layer_0
  def forward(self: __torch__.Model,
    x: Tensor,
    rows: List[List[str]]) -> Tuple[Tensor, int]:
    weight = self.weight
    _0 = getattr(self, "0")
    y = annotate(List[int], [])
    for _1 in range(torch.len(rows)):
      row = rows[_1]
      if torch.eq(torch.len(row), 0):
        n = -1
      else:
        n = 2
      _2 = torch.append(y, n)
    z = torch._convolution(x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, True)
    _3 = torch.div(z, CONSTANTS.c0)
    _4 = torch.mul(_3, 1.0000000000000001e-05)
    _5 = ops.prim.NumToTensor(torch.size(_4, 0))
    return ((_0).forward(torch.relu(_4), ), int(_5))
  def preprocess(self: __torch__.Model,
    x: Tensor) -> Tensor:
    return torch.to(x, 6)
)";

TEST(SourceScan, TakesWhatTheExporterWrites) { EXPECT_NO_THROW(scan_source(kGood, "code")); }

// each line goes to the end of forward, or where `@` stands
TEST(SourceScan, RefusesWhatReachesOutOrHides) {
  const char* lines[] = {
      "    _9 = torch.save(x, \"/tmp/f\")",
      "    _9 = torch.from_file(\"/etc/passwd\", None, 10)",
      "    _9 = torch._load_from_bytes(x)",
      "    _9 = torch.manual_seed(1)",
      "    _9 = torch.rand([3])",
      "    _9 = torch.set_(x, y)",
      "    _9 = torch.as_strided(x, [9], [1], 0)",
      "    _9 = torch.autograd.grad([x], [y])",
      "    _9 = torch.classes.quantized.Thing()",
      "    _9 = ops.aten.save(x, \"f\")",
      "    _9 = ops.prim.fork(x)",
      "    _9 = ops.quantized.linear(x)",
      "    _9 = ops.lehr.image_normalize(x)",
      "    f = torch.save",
      "    f = torch . save",
      "    t = torch",
      "    o = ops",
      "    _9 = (x).save(\"f\")",
      "    _9 = x.save(\"f\")",
      "    _9 = x.from_file(\"f\")",
      "    _9 = 1..save(\"f\")",
      "    _9 = 1 .save(\"f\")",
      "    _9 = 0x1.save(\"f\")",
      "    _9 = \"s\".save(\"f\")",
      "    _9 = (x.save)(\"f\")",
      "    _9 = [x.save][0](\"f\")",
      "    _9 = {\"a\": x.save}[\"a\"](\"f\")",
      "    _9 = getattr(x, \"save\")(\"f\")",
      "    f = x.save\n    _9 = f(\"g\")",
      "    annotate = x.save\n    _9 = annotate(\"g\")",
      "    range = x.save\n    _9 = range(\"g\")",
      "    int = x.save\n    _9 = int(\"g\")",
      "    a, int, b = x.save, x, x",
      "    (a, int) = (x.save, x)",
      "    [int, a] = [x.save, x]",
      "    torch = x\n    _9 = torch.add(x, 1)",
      "    for int in range(torch.len(y)):\n      _9 = 1",
      "    while True:\n      _9 = 1",
      "    for i in range(1000000000000):\n      _9 = 1",
      "    for i in y:\n      _9 = 1",
      "    with x as y:\n      _9 = 1",
      "    import os",
      "    from os import system",
      "    _9 = eval(\"1\")",
      "    _9 = exec(\"1\")",
      "    _9 = open(\"f\")",
      "    _9 = print(x)",
      "    _9 = x.__class__",
      "    _9 = __import__(\"os\")",
      "    _9 = lambda: 1",
      "    _9 = uninitialized(Tensor)",
      "    _9 = unchecked_cast(Tensor, 1)",
      "    _9 = __torch__.Other(x)",
      "    _9 = __torch__.run.forward(x)",
      "    _9 = x # torch.save(x)",
      "    _9 = \"\"\"x\"\"\"",
      "    _9 = r\"x\\\"",
      "    _9 = \"x\\\ny\"",
      "    _9 = 'x",
      "    _9 = x; _8 = 1",
      "    _9 = x @ y",
      "    _9 = x\\\n    .save(\"f\")",
      "    _9 = \xc3\xa9",
      "  def __setstate__(self, x: int) -> None:\n    return None",
      "  def __getstate__(self) -> int:\n    return 1",
      "  def __del__(self) -> None:\n    return None",
      "  def save(self, x: int) -> None:\n    return None",
      "  def lehr_f(self, int: Tensor) -> None:\n    return None",
      "  def lehr_f(self, x: int=torch.save(1, \"f\")) -> None:\n    return None",
      "  __forward_hooks__ = [x]",
      "class Other:\n  x : int",
      "class Other(NamedTuple):\n  x : int",
      "class Other(Enum):\n  x : int",
      "def run(x: Tensor) -> Tensor:\n  return x",
  };
  for (const char* line : lines) {
    const std::string text = std::string(kGood) + line + "\n";
    try {
      scan_source(text, "code");
      ADD_FAILURE() << "not refused: " << line;
    } catch (const Error& e) {
      EXPECT_EQ(static_cast<int>(e.code()), 5) << line;
      // what is named lies on the line that was added
      const int32_t good_lines =
          static_cast<int32_t>(std::count(kGood, kGood + sizeof kGood, '\n'));
      EXPECT_GT(std::stoi(e.where().substr(e.where().rfind(':') + 1)), good_lines)
          << line << ": " << e.what();
    }
  }
}

TEST(Geometry, OnlyWhatLiesInItsStorageFits) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  struct Case {
    std::vector<int64_t> sizes, strides;
    int64_t offset, elements;
    bool fits;
  };
  const std::vector<Case> cases = {
      // at the limit and one beyond it
      {{}, {}, 0, 1, true},
      {{}, {}, 1, 1, false},
      {{}, {}, 0, 0, false},
      {{6}, {1}, 0, 6, true},
      {{6}, {1}, 0, 5, false},
      {{7}, {1}, 0, 6, false},
      {{6}, {1}, 4, 10, true},
      {{6}, {1}, 5, 10, false},
      {{2, 3}, {3, 1}, 0, 6, true},
      {{2, 3}, {1, 2}, 0, 6, true},  // transposed
      {{2, 3}, {3, 2}, 0, 8, true},
      {{2, 3}, {3, 2}, 0, 7, false},
      {{2, 3}, {3, 1}, 1, 7, true},
      {{2, 3}, {3, 1}, 2, 7, false},
      {{1, 1}, {kMost, kMost}, 0, 1, true},  // strides that are never walked
      {{2}, {kMost}, 0, kMost, false},
      {{2}, {kMost - 1}, 0, kMost, true},
      // below zero
      {{-1}, {1}, 0, 6, false},
      {{2}, {-1}, 1, 6, false},
      {{2}, {1}, -1, 6, false},
      {{2}, {1}, 0, -1, false},
      {{-1, -1}, {1, 1}, 0, 6, false},
      // more elements than the storage, though each lies in it
      {{6, 2}, {1, 0}, 0, 12, true},
      {{7, 2}, {1, 0}, 0, 12, false},
      {{kMost}, {0}, 0, 6, false},
      // products and sums that pass 2^63 and 2^64
      {{int64_t{1} << 32, int64_t{1} << 32}, {0, 0}, 0, 6, false},
      {{int64_t{1} << 32, int64_t{1} << 31}, {0, 0}, 0, kMost, false},
      {{3, 3}, {int64_t{1} << 62, int64_t{1} << 62}, 0, kMost, false},
      {{3}, {int64_t{1} << 63 >> 1 & kMost}, 0, kMost, false},
      {{2}, {kMost}, kMost, kMost, false},
      {{kMost, kMost, kMost}, {kMost, kMost, kMost}, kMost, kMost, false},
      // nothing in it
      {{0}, {1}, 0, 0, true},
      {{0}, {1}, 1, 0, false},
      {{0, 5}, {5, 1}, 0, 0, true},
      {{5, 0}, {1, 1}, 3, 3, true},
      {{kMost, 0}, {1, 1}, 0, 6, false},
      {{int64_t{1} << 32, 0, int64_t{1} << 32}, {1, 1, 1}, 0, 6, false},
      // not as many of one as of the other
      {{2, 3}, {1}, 0, 6, false},
      {{}, {1}, 0, 6, false},
  };
  for (const auto& c : cases)
    EXPECT_EQ(misfit({c.sizes, c.strides, c.offset, c.elements}).empty(), c.fits)
        << fmt::format("[{}] [{}] {} in {}: {}", fmt::join(c.sizes, ","), fmt::join(c.strides, ","),
                       c.offset, c.elements, misfit({c.sizes, c.strides, c.offset, c.elements}));
}

// pickles, spelled out
std::string number(int64_t value) {
  std::string out = "\x8a\x08";
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}
std::string text(const std::string& value) {
  return "X" + std::string{static_cast<char>(value.size()), 0, 0, 0} + value;
}
std::string numbers(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (int64_t value : values) out += number(value);
  return out + "t";
}
struct Stored {
  std::string type = "FloatStorage", member = "0";
  int64_t elements = 6;
  Geometry geometry{{2, 2}, {3, 1}, 1, 0};
  std::string pickle() const {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + type + "\n" +
           text(member) + text("cpu") + number(elements) + "tQ" + number(geometry.offset) +
           numbers(geometry.sizes) + numbers(geometry.strides) +
           "\x89"
           "ccollections\nOrderedDict\n)RtR";
  }
};
// an object with one attribute
std::string object(const std::string& attribute) {
  return "\x80\x02"
         "c__torch__\nModel\n)\x81}(" +
         text("a") + attribute + "ub.";
}

TEST(PickleScan, TakesTensorsThatLieInTheirMembersOnly) {
  const StorageBytes members = {{"0", 24}, {"1", 20}, {"2", 0}};
  auto scan = [&](const Stored& stored) {
    scan_pickle(object(stored.pickle()), members, "data.pkl");
  };
  EXPECT_NO_THROW(scan({}));
  EXPECT_NO_THROW(scan({.member = "1", .elements = 5, .geometry = {{2, 2}, {2, 1}, 1, 0}}));
  EXPECT_NO_THROW(scan({.type = "DoubleStorage", .elements = 3, .geometry = {{3}, {1}, 0, 0}}));
  EXPECT_NO_THROW(scan({.member = "2", .elements = 0, .geometry = {{0}, {1}, 0, 0}}));
  for (const Stored& bad : std::vector<Stored>{{.elements = 7},
                                               {.elements = 5},
                                               {.elements = -6},
                                               {.elements = int64_t{1} << 62},  // times 4 is 0
                                               {.elements = (int64_t{1} << 62) + 6},
                                               {.type = "DoubleStorage"},
                                               {.type = "HalfStorage"},
                                               {.type = "ComplexFloatStorage", .elements = 3},
                                               {.type = "QInt8Storage", .elements = 24},
                                               {.member = "1"},
                                               {.member = "3"},
                                               {.member = "../data/0"},
                                               {.member = "2", .elements = 1},
                                               {.geometry = {{3, 2}, {3, 1}, 1, 0}},
                                               {.geometry = {{2, 2}, {4, 1}, 1, 0}},
                                               {.geometry = {{2, 2}, {3, 1}, 2, 0}},
                                               {.geometry = {{2, 2}, {3}, 1, 0}},
                                               {.geometry = {{2, -2}, {3, 1}, 1, 0}}}) {
    const std::string message = refused(Code::kCheckpoint, [&] { scan(bad); });
    EXPECT_NE(message.find("data.pkl"), std::string::npos) << message;
  }
}

TEST(PickleScan, TakesNothingThatThePicklerDoesNotWrite) {
  const std::string list =
      "ctorch.jit._pickle\nrestore_type_tag\n](" + text("a") + "e" + text("List[str]") + "\x86R";
  const std::string map = "ctorch.jit._pickle\nrestore_type_tag\n}(" + text("a") + "K\x01u" +
                          text("Dict[str, int]") + "\x86R";
  auto scan = [](const std::string& pickle) { scan_pickle(pickle, {}, "data.pkl"); };
  for (const std::string& good :
       {list, map, std::string("N"), std::string("\x88"), std::string("M\x01\x01"), number(-1),
        std::string("J\1\0\0\0", 5), std::string("G\0\0\0\0\0\0\0\0", 9),
        text("abc") + std::string("q\0", 2), std::string("(K\x01K\x02K\x03K\x04t"),
        std::string("K\x01\x85")})
    EXPECT_NO_THROW(scan(object(good))) << good;
  std::string deep = "N";
  for (int i = 0; i < 300; ++i) deep += "\x85";
  const std::string remembered = "Nq" + std::string(1, '\0');
  for (const std::string& bad :
       {// classes and functions
        std::string("cos\nsystem\n)R"), std::string("cbuiltins\neval\n(NtR"),
        std::string("c__torch__.torch.classes.quantized\nThing\n)\x81}b"),
        std::string("ctorch._utils\n_rebuild_qtensor\n)R"), std::string("ctorch\nsave\n)R"),
        std::string("ctorch\ndevice\n(X\3\0\0\0cput", 23), std::string("c__torch__\nX\n"),
        std::string("c__torch__\nX\n)\x81"), std::string("ctorch\nFloatStorage\n"),
        // opcodes of others
        std::string("i__main__\nx\n"), std::string("\x93"), std::string("\x95"),
        std::string("B\x01\0\0\0x", 6), std::string("Na"), std::string("\x80\x02N"),
        // what is too short
        std::string("X\xff\xff\xff\x7f", 5), std::string("cno end"), std::string("K"),
        std::string("\x8a\x04\0\0\0\0", 6), std::string("R"), std::string("b"), std::string("Q"),
        std::string("e"), std::string("u"), std::string("t"), std::string("\x87"),
        // values of other kinds than they are taken for: a number is no function, a mark no value
        std::string("K\0(NtR", 6), std::string("K\0)\x81}b", 6), std::string("N(q\0", 4),
        std::string("((NQ"), std::string("(K\x01K\x02K\x03K\x04K\x05tQ"),
        "ctorch._utils\n_rebuild_tensor_v2\n" + numbers({1, 2, 3, 4, 5, 6}) + "R",
        // a dict of an odd number of items, of numbers; one that is filled twice or not at all
        "}(" + text("a") + "u", std::string("}(K\x01K\x01u"),
        "}(" + text("a") + "Nu(" + text("b") + "Nu", std::string("}"), std::string("]"),
        std::string("](Ne(Ne"), std::string("](]e"), std::string("]q\0(Ne", 6),
        // a list of another type than is said
        "ctorch.jit._pickle\nrestore_type_tag\n](" + text("a") + "e" + text("List[int]") + "\x86R",
        "ctorch.jit._pickle\nrestore_type_tag\n](" + text("a") + "e" + text("Dict[str, int]") +
            "\x86R",
        // what was never remembered, or out of order; a module in two places
        std::string("h\0", 2), std::string("Nq\1"), remembered + "h\1",
        "(c__torch__\nX\n)\x81}(ubq" + std::string(1, '\0') + "h" + std::string(1, '\0') + "t",
        deep})
    refused(Code::kCheckpoint, [&] { scan(object(bad)); });
  for (const std::string& bad :
       {std::string(), std::string("\x80"), std::string("\x80\x02"), std::string("\x80\x04N."),
        std::string("N."), std::string("\x80\x02N.N"), std::string("\x80\x02NN."),
        std::string("\x80\x02.")})
    refused(Code::kCheckpoint, [&] { scan(bad); });
  EXPECT_NE(
      refused(Code::kCheckpoint, [&] { scan(std::string((64 << 20) + 1, 'N')); }).find("67108865"),
      std::string::npos);
}

// LibTorch knows it: an operator, or one of the words that its graphs are made of
bool is_operator(const std::string& kind) {
  const auto symbol = c10::Symbol::fromQualString(kind);
  return !torch::jit::getAllOperatorsFor(symbol).empty() ||
         (symbol.is_prim() &&
          symbol < c10::Symbol(static_cast<c10::unique_t>(c10::_keys::num_symbols)));
}

TEST(OperatorScan, EveryNameOfTheListIsAnOperatorOfLibTorch) {
  for (const auto& [space, names] : {std::pair("aten", allowed_aten()), {"prim", allowed_prim()}})
    for (const auto& name : names)
      EXPECT_TRUE(is_operator(fmt::format("{}::{}", space, name))) << space << "::" << name;
  EXPECT_FALSE(is_operator("aten::conv2dd"));
  EXPECT_FALSE(is_operator("prim::Constants"));
}

TEST(OperatorScan, WhatHarmsIsNotOnTheList) {
  for (const char* name : {"save", "from_file", "set_", "as_strided", "rand", "bernoulli",
                           "_load_from_file", "empty", "empty_like", "new_empty", "resize_"})
    EXPECT_FALSE(operator_allowed(std::string("aten::") + name)) << name;
  for (const char* kind :
       {"prim::Print", "prim::fork", "prim::CallFunction", "prim::SetAttr", "prim::PythonOp",
        "prim::CreateObject", "lehr::image_normalize", "quantized::linear", "add"})
    EXPECT_FALSE(operator_allowed(kind)) << kind;
  EXPECT_TRUE(operator_allowed("aten::conv2d"));
  const std::string message = refused(Code::kCheckpoint, [&] {
    scan_operators({"aten::add", "aten::save"}, "model.pt");
  });
  EXPECT_NE(message.find("aten::save"), std::string::npos);
}

// a zip archive with the given members; `change` may spoil the header records before they are
// written
struct Entry {
  std::string name, content;
  uint16_t method = 0;
  std::string local_name;  // when it differs
};
void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}
std::string zip(const std::vector<Entry>& entries, const std::string& comment = "") {
  std::string out, directory;
  for (const auto& e : entries) {
    const uint32_t crc = static_cast<uint32_t>(crc32(
        0, reinterpret_cast<const Bytef*>(e.content.data()), static_cast<uInt>(e.content.size())));
    const std::string local = e.local_name.empty() ? e.name : e.local_name;
    const uint64_t offset = out.size();
    auto common = [&](std::string& to, const std::string& name) {
      put(to, 20, 2), put(to, 0, 2), put(to, e.method, 2), put(to, 0, 4), put(to, crc, 4);
      put(to, e.content.size(), 4), put(to, e.content.size(), 4), put(to, name.size(), 2),
          put(to, 0, 2);
    };
    out += "PK\x03\x04";
    common(out, local);
    out += local + e.content;
    directory += "PK\x01\x02";
    put(directory, 20, 2);
    common(directory, e.name);
    put(directory, 0, 2), put(directory, 0, 2), put(directory, 0, 2), put(directory, 0, 4),
        put(directory, offset, 4);
    directory += e.name;
  }
  const uint64_t begin = out.size();
  out += directory + "PK\x05\x06";
  put(out, 0, 4), put(out, entries.size(), 2), put(out, entries.size(), 2),
      put(out, directory.size(), 4), put(out, begin, 4);
  put(out, comment.size(), 2);
  return out + comment;
}

TEST(Archive, TakesStoredMembersOfOneFolder) {
  const auto bytes = zip({{"m/data.pkl", "abc"}, {"m/code/x.py", ""}});
  const auto members = read_archive(bytes, "m.pt");
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].name, "data.pkl");
  EXPECT_EQ(members[0].content, "abc");
}

TEST(Archive, RefusesTricks) {
  const std::vector<std::string> bad = {
      zip({{"m/data.pkl", "abc", 8}}),                      // deflated
      zip({{"m/data.pkl", "abc"}, {"m/data.pkl", "abd"}}),  // twice
      zip({{"m/data.pkl", "abc"}, {"m/DATA.pkl", "abd"}}),  // the same to LibTorch
      zip({{"m/../data.pkl", "abc"}}),
      zip({{"/m/data.pkl", "abc"}}),
      zip({{"m//data.pkl", "abc"}}),
      zip({{"m/data.pkl", "abc"}, {"n/data.pkl", "abc"}}),  // two folders
      zip({{"data.pkl", "abc"}}),
      zip({{"m/data.pkl", "abc", 0, "m/else.pkl"}}),  // two names for one member
      zip({{"m/data.pkl", "abc"}}, "a comment"),
      "x" + zip({{"m/data.pkl", "abc"}}),  // another file in front
      zip({{"m/data.pkl", "abc"}}) + "x",
      zip({}),
      "",
      "PK",
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    try {
      read_archive(bad[i], "m.pt");
      ADD_FAILURE() << "not refused: " << i;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("m.pt"), std::string::npos);
    }
  }
  // a size that points elsewhere
  std::string bytes = zip({{"m/data.pkl", "abc"}});
  for (size_t at = 0; at < bytes.size(); ++at)
    for (unsigned char value : {0x00, 0x7f, 0xff}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(value);
      try {
        for (const auto& member : read_archive(changed, "m.pt"))
          EXPECT_LE(member.content.size(), changed.size());
      } catch (const Error&) {
      }
    }
}

TEST(Archive, RefusesMembersThatLehrNeverWrites) {
  const std::string nothing = "\x80\x02N.";
  EXPECT_NO_THROW(scan_archive(zip({{"m/data.pkl", nothing}, {"m/version", "3\n"}}), "m.pt"));
  for (const char* name : {"m/bytecode.pkl", "m/extra/x", "m/data/x", "m/code/x.so",
                           "m/code/x.py.debug_pkl", "m/attributes.pkl"})
    refused(Code::kCheckpoint, [&] {
      scan_archive(zip({{"m/data.pkl", nothing}, {name, "x"}}), "m.pt");
    });
  refused(Code::kCheckpoint, [&] { scan_archive(zip({{"m/version", "3\n"}}), "m.pt"); });
}

TEST(Archive, AnAttributeOfAnotherTypeThanItsClassDeclaresIsNotLoaded) {
  ToyNet model(1, 10);
  const std::string bytes = trace(model, draw(ToyImages(1, 10), 2).inputs).archive();
  // the file again, with another value for `training : bool`
  auto load = [&](char value) {
    std::vector<Entry> entries;
    for (const auto& [name, content] : read_archive(bytes, "m.pt")) {
      entries.push_back({"m/" + name, std::string(content)});
      if (name == "data.pkl")
        *std::find(entries.back().content.begin(), entries.back().content.end(), '\x89') = value;
    }
    load_script(zip(entries));
  };
  EXPECT_NO_THROW(load('\x88'));  // true
  try {
    load('N');
    ADD_FAILURE() << "it was loaded";
  } catch (const std::exception& e) {
    EXPECT_EQ(problem_of(e), "training is no bool");
  }
}

TEST(Archive, TakesWhatTheExporterWritesAndNothingSpoiled) {
  ToyNet model(1, 10);
  const std::string bytes = trace(model, draw(ToyImages(1, 10), 2).inputs).archive();
  EXPECT_NO_THROW(scan_archive(bytes, "m.pt"));
  // our reader in front of LibTorch's survives any damage: thousands of bytes, changed one at a
  // time
  uint64_t state = 1;
  for (int i = 0; i < 4000; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::string changed = bytes;
    // half of the changes in the directory at the end, where all the offsets are
    const size_t from = i % 2 ? bytes.size() - bytes.size() / 8 : 0;
    changed[from + (state >> 20) % (bytes.size() - from)] = static_cast<char>(state >> 12);
    try {
      scan_archive(changed, "m.pt");
    } catch (const Error&) {
    }
  }
  for (size_t size = 0; size < bytes.size(); size += 97)
    refused(Code::kCheckpoint, [&] { scan_archive(bytes.substr(0, size), "m.pt"); });
}

}  // namespace
}  // namespace lehr::artefact
