#include "engine/track/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lehr::track {

namespace {

constexpr double kWidth = 560, kHeight = 240, kLeft = 64, kRight = 12, kTop = 12, kBottom = 28;
constexpr int kColours = 6;
constexpr size_t kBuckets = 300;

struct Range {
  double low = INFINITY, high = -INFINITY;
  void take(double v) { low = std::min(low, v), high = std::max(high, v); }
  // a range that a line can be drawn in: never empty
  Range padded() const {
    if (!(low <= high)) return {0, 1};
    if (low == high) {
      const double pad = low == 0 ? 1 : std::abs(low) * 0.1;
      return {low - pad, high + pad};
    }
    const double pad = (high - low) * 0.04;
    return {low - pad, high + pad};
  }
};

// 1, 2 or 5 times a power of ten, about four to the range
double tick_step(const Range& range) {
  const double raw = (range.high - range.low) / 4,
               power = std::pow(10, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

struct Scale {
  Range x, y;
  double px(double v) const {
    return kLeft + (v - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double py(double v) const {
    return kHeight - kBottom - (v - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

using Points = std::vector<std::pair<double, double>>;

Points thinned(const Points& points) {
  if (points.size() <= 2 * kBuckets) return points;
  Points kept;
  for (size_t b = 0; b < kBuckets; ++b) {
    const auto begin = points.begin() + static_cast<int64_t>(b * points.size() / kBuckets);
    const auto end = points.begin() + static_cast<int64_t>((b + 1) * points.size() / kBuckets);
    auto lowest = end, highest = end, gap = end;
    for (auto p = begin; p != end; ++p) {
      if (!std::isfinite(p->second))
        gap = p;
      else if (lowest == end)
        lowest = highest = p;
      else if (p->second < lowest->second)
        lowest = p;
      else if (p->second > highest->second)
        highest = p;
    }
    std::vector<Points::const_iterator> chosen{lowest, highest, gap};
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    for (auto p : chosen)
      if (p != end) kept.push_back(*p);
  }
  return kept;
}

std::string path_of(const Points& points, const Scale& scale) {
  std::string d;
  bool pen_down = false;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(y)) {
      pen_down = false;
      continue;
    }
    d += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", scale.px(x), scale.py(y));
    pen_down = true;
  }
  return d;
}

std::string axes(const Scale& scale) {
  std::string out;
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const double y_step = tick_step(scale.y), x_step = std::max(1.0, tick_step(scale.x));
  for (double i = std::ceil(scale.y.low / y_step); i * y_step <= scale.y.high; ++i) {
    const double y = scale.py(i * y_step);
    out += fmt::format(
        R"(<path class="grid" d="M{} {:.1f}H{}"/><text class="y" x="{}" y="{:.1f}">{:.4g}</text>)",
        kLeft, y, right, kLeft - 6, y + 4, i * y_step);
  }
  for (double i = std::ceil(scale.x.low / x_step); i * x_step <= scale.x.high; ++i)
    out += fmt::format(R"(<text class="x" x="{:.1f}" y="{}">{:.6g}</text>)", scale.px(i * x_step),
                       bottom + 18, i * x_step);
  return out + fmt::format(R"(<path class="axis" d="M{} {}V{}H{}"/>)", kLeft, kTop, bottom, right);
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // control characters are no part of HTML
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') out += c;
    }
  return out;
}

std::string line_chart(const std::string& title, const std::vector<Series>& series) {
  Range x, y;
  for (const Series& s : series)
    for (const auto& [px, py] : s.points)
      if (std::isfinite(py)) x.take(px), y.take(py);
  const Scale scale{x.padded(), y.padded()};
  std::string out = fmt::format(R"(<svg viewBox="0 0 {} {}" role="img"><title>{}</title>)", kWidth,
                                kHeight, escape_html(title));
  out += axes(scale);
  for (size_t i = 0; i < series.size(); ++i) {
    const Points points = thinned(series[i].points);
    const int colour = static_cast<int>(i) % kColours;
    // a lone point has no line: every series of few points shows them
    out += fmt::format(R"(<path class="line s{}" d="{}"/>)", colour, path_of(points, scale));
    if (points.size() > 40) continue;
    for (const auto& [px, py] : points)
      if (std::isfinite(py))
        out += fmt::format(R"(<circle class="s{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>)", colour,
                           scale.px(px), scale.py(py));
  }
  return out + "</svg>";
}

}  // namespace lehr::track
