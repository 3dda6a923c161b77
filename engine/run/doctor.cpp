// Gathers everything into one JSON object and prints it either way, so that the two never differ.
#include "engine/run/doctor.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/cores.h"
#include "engine/base/device.h"
#include "engine/base/error.h"
#include "engine/dist/launcher.h"
#include "engine/run/roll_call.h"

namespace lehr::run {
namespace {

using Json = nlohmann::ordered_json;

// the value of "key : value" in a file of /proc, or ""
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.rfind(key, 0) != 0 || colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

int64_t memory_bytes(const std::string& key) {  // of /proc/meminfo, which counts in kB
  const std::string text = proc_value("/proc/meminfo", key);
  return text.empty() ? 0 : std::stoll(text) * 1024;
}

// the limit of this container, 0 without one
int64_t container_bytes() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t bytes = 0;
  return file >> bytes ? bytes : 0;
}

Json missing(const char* what, const std::string& why, const char* command) {
  return {{"what", what}, {"why", why}, {"command", command}};
}

Json gather() {
  Json report, lacks = Json::array(), devices = Json::array();
  report["build"] = build_stamp();

  // the CUDA half first: LibTorch must not be asked anything before it is loaded
  Json cuda = {{"built", !cuda_library_path().empty()}, {"library", cuda_library_path()}};
  std::string no_device;
  const bool present = gpu_present(&no_device);
  if (!cuda["built"]) {
    const char* chosen = std::getenv("LEHR_CUDA_LIBRARY");
    if (chosen && *chosen)
      lacks.push_back(missing(
          "CUDA half", fmt::format("LEHR_CUDA_LIBRARY names {}, which cannot be read", chosen),
          "unset LEHR_CUDA_LIBRARY"));
    else
      lacks.push_back(missing("CUDA half", "this build has no liblehr_cuda.so",
                              "scripts/setup && scripts/build -DLEHR_CUDA=ON"));
    if (present) no_device = "there is a GPU, but this build has no CUDA half";
  } else {
    try {
      DeviceRuntime* runtime = load_cuda();
      cuda["versions"] = runtime->versions();
      for (const DeviceInfo& d : runtime->devices())
        devices.push_back({{"name", d.name},
                           {"compute_capability", fmt::format("{}.{}", d.major, d.minor)},
                           {"total_bytes", d.total_bytes},
                           {"free_bytes", d.free_bytes}});
      if (present && devices.empty())
        no_device = "the CUDA runtime finds no device (is the driver older than CUDA's version?)";
    } catch (const Error& error) {
      cuda["problem"] = error.what();
      no_device = "the CUDA half does not load";
      lacks.push_back(missing("CUDA half", error.message(), "scripts/build"));
    }
  }
  if (!present)
    lacks.push_back(
        missing("GPU", no_device,
                "apt-get install nvidia-driver (580 or newer), on a machine with an NVIDIA GPU"));
  report["cuda"] = cuda;
  report["devices"] = devices;
  if (devices.empty()) report["no_device_because"] = no_device;

  report["cpu"] = {{"model", proc_value("/proc/cpuinfo", "model name")},
                   {"capability", at::get_cpu_capability()},
                   {"cores", usable_cores()},
                   {"threads", at::get_num_threads()}};
  report["memory"] = {{"total_bytes", memory_bytes("MemTotal")},
                      {"free_bytes", memory_bytes("MemAvailable")},
                      {"container_limit_bytes", container_bytes()}};
  // the first four every build has; they are found at configuration or it stops
  Json parts = {"gzip", "jpeg", "png", "yaml"};
  if (cuda["built"]) parts.push_back("cuda");
  if (dlsym(RTLD_DEFAULT, "mi_version"))
    parts.push_back("mimalloc");
  else
    lacks.push_back(missing("mimalloc", "memory comes from the C library, which is slower",
                            "apt-get install libmimalloc-dev && scripts/build -DLEHR_TESTS=ON"));
  report["built_in"] = parts;
  report["missing"] = lacks;
  return report;
}

std::string gib(const Json& bytes) {
  return fmt::format("{:.1f} GiB", bytes.get<double>() / (1 << 30));
}
std::string text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string lines(const Json& report) {
  std::string out;
  const auto line = [&out](const char* name, const std::string& value) {
    out += fmt::format("{:<9} {}\n", name, value);
  };
  line("build", text(report["build"]));
  const Json& cpu = report["cpu"];
  line("cpu", fmt::format("{}, {} cores, {} threads, LibTorch uses {}", text(cpu["model"]),
                          text(cpu["cores"]), text(cpu["threads"]), text(cpu["capability"])));
  const Json& memory = report["memory"];
  std::string size =
      fmt::format("{}, {} free", gib(memory["total_bytes"]), gib(memory["free_bytes"]));
  if (memory["container_limit_bytes"] != 0)
    size += fmt::format(", this container may use {}", gib(memory["container_limit_bytes"]));
  line("memory", size);

  const Json& cuda = report["cuda"];
  line("cuda", !cuda["built"]             ? "not built"
               : cuda.contains("problem") ? text(cuda["problem"])
                                          : text(cuda["versions"]));
  if (report["devices"].empty()) line("devices", "cpu only: " + text(report["no_device_because"]));
  int index = 0;
  for (const Json& d : report["devices"]) {
    line(index == 0 ? "devices" : "",
         fmt::format("cuda:{} {}, compute capability {}, {}, {} free", index, text(d["name"]),
                     text(d["compute_capability"]), gib(d["total_bytes"]), gib(d["free_bytes"])));
    ++index;
  }

  std::string parts;
  for (const Json& part : report["built_in"]) parts += (parts.empty() ? "" : " ") + text(part);
  line("built in", parts);
  for (const Json& m : report["missing"])
    line("missing", fmt::format("{}: {}\n{:<10}to add it: {}", text(m["what"]), text(m["why"]), "",
                                text(m["command"])));
  return out;
}

}  // namespace

Diagnosis doctor(bool json, double timeout_s) {
  const dist::Place place = dist::find_place();
  Diagnosis diagnosis;
  Json report;
  if (place.rank == 0) {
    report = gather();
    diagnosis.text = lines(report);
  }
  if (place.size > 1) {
    const Json ranks = roll_call(place, timeout_s);
    // the lead speaks and ends for all
    if (place.rank != 0) return diagnosis;
    report["world"] = ranks;
    diagnosis.text += roll_call_lines(ranks);
    if (!ranks["problems"].empty()) diagnosis.code = Code::kRanks;
  }
  if (json && place.rank == 0) diagnosis.text = report.dump(2) + "\n";
  return diagnosis;
}

}  // namespace lehr::run
