// Line charts as inline SVG: axes with round ticks, a line per series, gaps where a value is
// missing. Colours come from the page's CSS (classes s0..s5), so that light and dark pages share
// the drawing.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lehr::track {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending; a y that is not finite is a gap
};

std::string escape_html(const std::string& text);
// Long series are thinned to the extremes of some hundred buckets, so that no spike is lost.
std::string line_chart(const std::string& title, const std::vector<Series>& series);

}  // namespace lehr::track
