// How far a search is, on standard error: a bar with rate and time left for people, one JSON object
// a line for programs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cli/console.h"
#include "core/search/search.h"

namespace tiny_knn {

enum class ProgressMode { kAuto, kAlways, kNever, kJson };

// "auto", "always", "never", "json".
std::optional<ProgressMode> ParseProgressMode(std::string_view name);

// Whether a bar is drawn. kAuto: only on a terminal that can redraw a line (TERM is set and not
// "dumb"), not when quiet, and not when TQDM_DISABLE asks for none. `environment` returns a
// variable's value or null.
bool WantsBar(ProgressMode mode, bool quiet, bool stderr_is_terminal,
              const std::function<const char*(const char*)>& environment);

struct ProgressState {
  int64_t pairs_done = 0;
  int64_t pairs_total = 0;
  double seconds = 0;  // since the search began
  // Where somebody knows better than the rate so far.
  std::optional<double> seconds_left = {};
};

// The bar, exactly `width` columns or less and without a line end: share, bar, rate, time left.
std::string FormatProgressBar(const ProgressState& state, int width);

// One JSON object, without a line end. `eta_seconds` is null as long as nothing is known.
std::string FormatProgressJson(const ProgressState& state);

// One line on standard error that is drawn over itself. The console must outlive it.
// Thread-compatible.
class TerminalLine {
 public:
  explicit TerminalLine(Console& console) : console_(console) {}
  ~TerminalLine() { Clear(); }
  TerminalLine(const TerminalLine&) = delete;
  TerminalLine& operator=(const TerminalLine&) = delete;

  // Columns that may be drawn on: one less than the terminal has, since some wrap as soon as the
  // last one is written; 79 where the terminal does not say.
  static int Width();

  // `line` takes at most Width() columns.
  void Draw(const std::string& line);
  // Takes the line away, so that others can be printed.
  void Clear();

 private:
  Console& console_;
  int drawn_width_ = 0;  // columns of the line that stands on the terminal
};

// Draws what it hears, at most ten times a second, and is cancelled by a caught signal. The console
// must outlive it. Thread safety as Progress says.
class ConsoleProgress : public Progress {
 public:
  ConsoleProgress(Console& console, bool bar, bool json);

  void Report(int64_t pairs_done, int64_t pairs_total) override;
  bool cancelled() const override;

 private:
  using Clock = std::chrono::steady_clock;
  Console& console_;
  const bool bar_;
  const bool json_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_shown_;
  bool shown_any_ = false;
  TerminalLine line_;
};

}  // namespace tiny_knn
