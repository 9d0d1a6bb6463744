// The order in which people count: file_2 before file_10.
#pragma once

#include <string>
#include <string_view>

namespace tiny_knn {

// Less than 0, 0 or greater where `a` comes before `b`, stands in the same place, or behind it:
// runs of digits compare as numbers of any size, everything else byte by byte, and a number comes
// before everything else. Different names may stand in one place: "1" and "01". Pure.
int CompareNaturally(std::string_view a, std::string_view b);

// The name with each run of digits replaced by one '#': what names that only count differ not in.
std::string WithoutNumbers(std::string_view name);

}  // namespace tiny_knn
