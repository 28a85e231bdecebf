// A line of figures that fits its place: what matters least goes first.
#pragma once

#include <span>
#include <string>

namespace adagate {

struct StatusField {
  std::string text;
  int weight = 0;  // fields of the lowest weight are left out first
};

// The fields, two spaces apart, in at most `width` columns: fields are left out until the rest
// fits, and a last one that doesn't is cut. Texts are ASCII.
std::string status_line(std::span<const StatusField> fields, int width);
// All of them.
std::string status_line(std::span<const StatusField> fields);

}  // namespace adagate
