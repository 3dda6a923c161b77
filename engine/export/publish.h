// A folder that is there whole or not at all: written under a temporary name, then renamed.
#pragma once

#include <functional>
#include <string>

namespace lehr::artefact {

// Calls `fill` with the temporary folder, removes it when that throws, and removes what killed
// exports left beside it. Throws Error{kUsage} when `output` exists already.
void publish_folder(const std::string& output,
                    const std::function<void(const std::string& folder)>& fill);
// A new file, durable once the folder is.
void write_bytes(const std::string& path, const std::string& bytes);

}  // namespace lehr::artefact
