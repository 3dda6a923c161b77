// Decides, before anything of a model.pt runs, whether it may: loading a TorchScript file runs code
// of the file, and a few of LibTorch's operators read and write files. Allow-lists, on three
// levels: members of the archive and what its pickles hold (pickle.h), the words of its source, and
// the operators of the compiled graphs. It keeps out what is known to harm; it does not bound
// memory or time, and is no sandbox.
#pragma once

#include <set>
#include <string>
#include <string_view>

namespace lehr::artefact {

// Throws Error{kCheckpoint} naming member, line and word. `path` is for the message.
void scan_archive(std::string_view bytes, const std::string& path);
// The same for one source member; used by scan_archive.
void scan_source(std::string_view text, const std::string& where);
// Kinds of graph nodes ("aten::conv2d"): throws Error{kCheckpoint} naming the first that is not
// allowed.
void scan_operators(const std::set<std::string>& kinds, const std::string& where);
bool operator_allowed(const std::string& kind);
// The Error that all of them throw.
[[noreturn]] void refuse(const std::string& why, const std::string& where);

}  // namespace lehr::artefact
