// report.html: what a run did, on one page that opens anywhere: no scripts, no fonts, no addresses.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/base/files.h"
#include "engine/track/svg.h"
#include "engine/track/track.h"

namespace lehr::track {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#1c2026;--soft:#69727d;--rule:#d9dee3;--page:#fff;
--c0:#1f6fb4;--c1:#d1601f;--c2:#2f8f4e;--c3:#8a4fb5;--c4:#b5304f;--c5:#7a6a1e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#98a2ad;--rule:#3a424b;--page:#15181c;
--c0:#62aef0;--c1:#f09a62;--c2:#6fcf8d;--c3:#c594ea;--c4:#f0809a;--c5:#d3c15f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:76rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1.5rem}
figure{margin:0}figcaption{font-weight:600}figcaption span{font-weight:400;margin-left:.8em}
svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}
.x{text-anchor:middle}.y{text-anchor:end}.grid{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.s0{stroke:var(--c0);color:var(--c0)}.s1{stroke:var(--c1);color:var(--c1)}.s2{stroke:var(--c2);color:var(--c2)}
.s3{stroke:var(--c3);color:var(--c3)}.s4{stroke:var(--c4);color:var(--c4)}.s5{stroke:var(--c5);color:var(--c5)}
circle{fill:currentColor}
table{border-collapse:collapse}td,th{border-bottom:1px solid var(--rule);padding:.2rem .8rem .2rem 0;text-align:left}
.matrix td{text-align:right;font-variant-numeric:tabular-nums}
pre{overflow:auto;border:1px solid var(--rule);padding:1rem;font-size:13px})";

// Series by name, in the order of their first appearance.
std::vector<Series> read_series(const std::string& path) {
  std::vector<Series> all;
  if (path.empty() || !file_exists(path)) return all;
  std::map<std::string, size_t> index;
  const std::string text = read_file(path);
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const Json row = Json::parse(rest.substr(0, end), nullptr, false);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number()) continue;
    for (const auto& [name, value] : row.items()) {
      if (name == "step" || name == "samples" || name == "time") continue;
      const auto [at, is_new] = index.try_emplace(name, all.size());
      if (is_new) all.push_back({name, {}});
      all[at->second].points.emplace_back(
          row["step"].get<double>(),
          value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN());
    }
  }
  return all;
}

// train.loss and validation.loss share the chart "loss".
std::string chart_of(const std::string& name) { return name.substr(name.find('.') + 1); }

// The loss first, then what validation measured, then the rest (learning rate, norms, speed).
std::vector<std::pair<std::string, std::vector<Series>>> charts_of(std::vector<Series> all) {
  std::vector<std::pair<std::string, std::vector<Series>>> charts;
  const auto add = [&](auto&& wanted) {
    for (const Series& s : all) {
      const std::string chart = chart_of(s.name);
      if (!wanted(s.name, chart)) continue;
      auto known = std::find_if(charts.begin(), charts.end(),
                                [&](const auto& c) { return c.first == chart; });
      if (known == charts.end()) known = charts.insert(known, {chart, {}});
      const bool there = std::any_of(known->second.begin(), known->second.end(),
                                     [&](const Series& other) { return other.name == s.name; });
      if (!there) known->second.push_back(s);
    }
  };
  add([](const std::string&, const std::string& chart) { return chart == "loss"; });
  add([](const std::string&, const std::string& chart) { return chart == "lr"; });
  add([](const std::string& name, const std::string&) { return !name.starts_with("train."); });
  add([](const std::string&, const std::string&) { return true; });
  return charts;
}

std::string figure(const std::string& title, const std::vector<Series>& series) {
  std::string out = "<figure><figcaption>" + escape_html(title);
  for (size_t i = 0; i < series.size(); ++i) {
    double last = std::numeric_limits<double>::quiet_NaN();
    for (const auto& point : series[i].points)
      if (std::isfinite(point.second)) last = point.second;
    out += fmt::format("<span class=\"s{}\">{} {:.5g}</span>", i % 6, escape_html(series[i].name),
                       last);
  }
  return out + "</figcaption>" + line_chart(title, series) + "</figure>\n";
}

bool is_matrix(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_array(); });
}

std::string cell(const Json& value) {
  if (value.is_string()) return escape_html(value.get<std::string>());
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  return escape_html(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Rows of the summary table; matrices go to `tables`.
void add_rows(const std::string& prefix, const Json& value, std::string& rows,
              std::string& tables) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items())
      add_rows(prefix.empty() ? key : prefix + "." + key, inner, rows, tables);
  } else if (is_matrix(value)) {
    tables += "<h2>" + escape_html(prefix) + "</h2>\n<table class=\"matrix\">\n";
    for (const Json& row : value) {
      tables += "<tr>";
      for (const Json& entry : row) tables += "<td>" + cell(entry) + "</td>";
      tables += "</tr>\n";
    }
    tables += "</table>\n";
  } else {
    rows += "<tr><th>" + escape_html(prefix) + "</th><td>" + cell(value) + "</td></tr>\n";
  }
}

}  // namespace

void write_report(const std::string& path, const Report& report) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
      escape_html(report.title) + "</title>\n<style>" + kStyle +
      "\n</style>\n</head>\n<body>\n<h1>" + escape_html(report.title) + "</h1>\n";
  std::string rows, tables;
  const Json summary = Json::parse(report.summary_json, nullptr, false);
  if (!summary.is_discarded()) add_rows("", summary, rows, tables);
  if (!rows.empty()) html += "<h2>Summary</h2>\n<table>\n" + rows + "</table>\n";
  const auto charts = charts_of(read_series(report.metrics_path));
  if (!charts.empty()) {
    html += "<h2>Curves by step</h2>\n<div class=\"charts\">\n";
    for (const auto& [title, series] : charts) html += figure(title, series);
    html += "</div>\n";
  }
  html += tables;
  html += "<h2>Resolved recipe</h2>\n<pre>" + escape_html(report.recipe_yaml) +
          "</pre>\n</body>\n</html>\n";
  write_file_durably(path, html);
}

}  // namespace lehr::track
