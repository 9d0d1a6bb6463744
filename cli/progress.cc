#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "cli/interrupt.h"
#include "cli/text.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr std::chrono::milliseconds kBetweenLines(100);
constexpr int kWidestBar = 40;
constexpr int kUsualTerminalWidth = 80;

double Share(const ProgressState& state) {
  if (state.pairs_total <= 0) return 1;
  const double share =
      static_cast<double>(state.pairs_done) / static_cast<double>(state.pairs_total);
  return std::clamp(share, 0.0, 1.0);
}

double PairsPerSecond(const ProgressState& state) {
  return state.seconds > 0 ? static_cast<double>(state.pairs_done) / state.seconds : 0;
}

std::optional<double> SecondsLeft(const ProgressState& state) {
  if (state.seconds_left) return state.seconds_left;
  const double rate = PairsPerSecond(state);
  if (rate <= 0) return std::nullopt;
  return static_cast<double>(std::max<int64_t>(0, state.pairs_total - state.pairs_done)) / rate;
}

}  // namespace

std::optional<ProgressMode> ParseProgressMode(std::string_view name) {
  if (name == "auto") return ProgressMode::kAuto;
  if (name == "always") return ProgressMode::kAlways;
  if (name == "never") return ProgressMode::kNever;
  if (name == "json") return ProgressMode::kJson;
  return std::nullopt;
}

bool WantsBar(ProgressMode mode, bool quiet, bool stderr_is_terminal,
              const std::function<const char*(const char*)>& environment) {
  if (mode == ProgressMode::kAlways) return true;
  if (mode != ProgressMode::kAuto || quiet || !stderr_is_terminal) return false;
  const char* terminal = environment("TERM");
  if (terminal == nullptr || *terminal == '\0' || std::string_view(terminal) == "dumb") {
    return false;
  }
  // As tqdm reads it: any value but these switches progress off.
  const char* disable = environment("TQDM_DISABLE");
  if (disable == nullptr) return true;
  const std::string_view value = disable;
  return value.empty() || value == "0" || value == "false" || value == "False";
}

std::string FormatProgressBar(const ProgressState& state, int width) {
  const double share = Share(state);
  const std::optional<double> left = SecondsLeft(state);
  const std::string percent = fmt::format("{:3}%", static_cast<int>(share * 100));
  const std::string rate = fmt::format("{} pairs/s", FormatRate(PairsPerSecond(state)));
  std::string time_left = "--:--";
  if (left) {
    const int64_t whole = std::llround(std::min(*left, 1e12));
    time_left = whole < 3600
                    ? fmt::format("{:02}:{:02}", whole / 60, whole % 60)
                    : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  }
  const std::string tail = fmt::format("{}, {} left", rate, time_left);
  const int bar_width =
      std::min(kWidestBar, width - static_cast<int>(percent.size() + tail.size()) - 4);
  std::string line;
  if (bar_width >= 5) {
    const int filled = static_cast<int>(share * bar_width);
    line = fmt::format("{} [{}{}] {}", percent, std::string(static_cast<size_t>(filled), '#'),
                       std::string(static_cast<size_t>(bar_width - filled), ' '), tail);
  } else {
    line = fmt::format("{} {}", percent, tail);
  }
  return width >= 1 ? TruncateToWidth(line, width) : std::string();
}

std::string FormatProgressJson(const ProgressState& state) {
  const std::optional<double> left = SecondsLeft(state);
  return fmt::format(
      "{{\"event\":\"progress\",\"pairs_done\":{},\"pairs_total\":{},\"seconds\":{:.3f},"
      "\"pairs_per_second\":{:.0f},\"eta_seconds\":{}}}",
      state.pairs_done, state.pairs_total, state.seconds, PairsPerSecond(state),
      left ? fmt::format("{:.3f}", *left) : "null");
}

ConsoleProgress::ConsoleProgress(Console& console, bool bar, bool json)
    : console_(console), bar_(bar), json_(json), line_(console) {}

void ConsoleProgress::Report(int64_t pairs_done, int64_t pairs_total) {
  if (!bar_ && !json_) return;
  const Clock::time_point now = Clock::now();
  // The end is always shown; so is the first report, so that a watcher knows the total at once.
  if (shown_any_ && pairs_done < pairs_total && now - last_shown_ < kBetweenLines) return;
  shown_any_ = true;
  last_shown_ = now;
  const ProgressState state{pairs_done, pairs_total,
                            std::chrono::duration<double>(now - start_).count()};
  if (json_) {
    console_.RawErr(FormatProgressJson(state) + "\n");
    return;
  }
  line_.Draw(FormatProgressBar(state, TerminalLine::Width()));
}

bool ConsoleProgress::cancelled() const { return CaughtSignal() != 0; }

int TerminalLine::Width() {
  const int terminal_width = TerminalWidth(STDERR_FILENO);
  return (terminal_width > 0 ? terminal_width : kUsualTerminalWidth) - 1;
}

void TerminalLine::Draw(const std::string& line) {
  console_.RawErr(fmt::format("\r{}", PadRight(line, std::min(drawn_width_, Width()))));
  drawn_width_ = DisplayWidth(line);
}

void TerminalLine::Clear() {
  if (drawn_width_ == 0) return;
  console_.RawErr(fmt::format("\r{:{}}\r", "", drawn_width_));
  drawn_width_ = 0;
}

}  // namespace tiny_knn
