// Text for people: what a terminal shows of names, numbers and scores. Pure functions, safe to call
// from any thread. Text is UTF-8; bytes that are not are shown as U+FFFD.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tiny_knn {

// Columns that `text` takes on a terminal: 2 for East Asian wide characters and emoji, 0 for
// combining marks, else 1. An approximation of the terminal's own tables.
int DisplayWidth(std::string_view text);

// `text` cut to at most `width` columns; what was cut ends in "…". REQUIRES: width >= 1.
std::string TruncateToWidth(std::string_view text, int width);

// `text` with blanks up to `width` columns, behind it or before it.
std::string PadRight(std::string_view text, int width);
std::string PadLeft(std::string_view text, int width);

// "999 B", "1.5 GiB": powers of 1024.
std::string FormatBytes(int64_t bytes);

// "812", "1.23 k", "4.56 M": powers of 1000, three digits.
std::string FormatRate(double per_second);

// "0.42 s", "2:05", "1:02:03".
std::string FormatSeconds(double seconds);

// "1 query", "5 queries".
std::string Plural(int64_t count, std::string_view one, std::string_view many);

// Scores of one table in one notation: fixed with six digits where that shows all of them well,
// else scientific.
std::vector<std::string> FormatScores(std::span<const double> scores);

// One line of `bins` characters, each as tall as the number of scores in its part of the range from
// the least to the greatest finite score. Empty when there are no two distinct finite scores.
// `unicode` uses block elements, else ASCII.
std::string Histogram(std::span<const double> scores, int bins, bool unicode);

// How many single-character edits (insert, delete, replace, swap of neighbours) part two words.
int EditDistance(std::string_view a, std::string_view b);

// The candidates nearest to `word`, nearest first, at most `count` and none further than a third of
// its length (at least 1, at most 3).
std::vector<std::string> NearestWords(std::string_view word,
                                      std::span<const std::string> candidates, size_t count);

}  // namespace tiny_knn
