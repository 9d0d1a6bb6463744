#include "cli/job_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <ctime>
#include <optional>
#include <utility>

#include "cli/text.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// In the order in which they are shown.
enum Column : size_t { kId, kUser, kState, kPrio, kSize, kK, kProgress, kElapsed, kEta, kReason };
constexpr size_t kColumns = 10;
constexpr std::array<const char*, kColumns> kTitles = {
    "ID", "USER", "STATE", "PRIO", "QxDxDIM", "K", "PROGRESS", "ELAPSED", "ETA", "REASON"};
constexpr std::array<bool, kColumns> kAlignedRight = {true, false, false, true, true,
                                                      true, true,  true,  true, false};
// Left out one after the other until the rest fits.
constexpr std::array<Column, 7> kFirstToGo = {kPrio, kK, kElapsed, kSize, kUser, kEta, kProgress};
constexpr int kBetweenColumns = 2;
constexpr int kFewestReasonColumns = 16;
constexpr int kLabelWidth = 14;

using Cells = std::array<std::string, kColumns>;

std::string Duration(const std::optional<double>& seconds) {
  return seconds ? FormatSeconds(std::max(0.0, *seconds)) : "-";
}

std::string SizeText(const JobView& job) {
  if (job.redacted) return "-";
  return fmt::format("{}x{}x{}", job.shape.num_queries, job.shape.num_docs, job.shape.dim);
}

// What there is to say in the end of the line: why it waits, what it does, what came of it.
std::string ReasonText(const JobView& job) {
  if (job.state == JobState::kDone) return job.output_path;
  if (IsFinished(job.state) && !job.error.empty()) return job.error;
  return job.reason;
}

Cells CellsOf(const JobRow& row) {
  const JobView& job = row.job;
  const bool waits = job.state == JobState::kQueued;
  return {fmt::format("{}", job.id),
          OneLine(row.user),
          std::string(JobStateName(job.state)),
          fmt::format("{}", job.priority),
          SizeText(job),
          job.redacted ? "-" : fmt::format("{}", job.shape.k),
          waits ? "-" : FormatPercent(job.progress),
          Duration(job.elapsed_seconds),
          IsFinished(job.state) ? "-" : Duration(job.eta_seconds),
          OneLine(ReasonText(job))};
}

std::string WallClock(const std::optional<double>& seconds) {
  if (!seconds || !std::isfinite(*seconds) || std::fabs(*seconds) > 1e11) return "-";
  const std::time_t time = static_cast<std::time_t>(*seconds);
  std::tm parts{};
  if (localtime_r(&time, &parts) == nullptr) return "-";
  std::array<char, 64> text{};
  const size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return {text.data(), length};
}

std::string Labelled(std::string_view label, const std::string& value) {
  return PadRight(label, kLabelWidth) + OneLine(value) + "\n";
}

// The parts of the device line that are worth their room.
std::vector<std::string> DeviceParts(const StatsReply& stats, const std::string& running_user) {
  std::vector<std::string> parts = {fmt::format("{} {}{}{}", stats.device, stats.device_state,
                                                running_user.empty() ? "" : " of ", running_user)};
  int64_t warm_bytes = 0;
  for (const WarmDocsStats& docs : stats.warm_docs) warm_bytes += docs.bytes;
  if (!stats.warm_docs.empty()) {
    parts.push_back(
        fmt::format("warm docs {} in {}", FormatBytes(warm_bytes),
                    Plural(static_cast<int64_t>(stats.warm_docs.size()), "file", "files")));
  }
  if (stats.max_memory_bytes > 0) {
    parts.push_back(fmt::format("memory limit {}", FormatBytes(stats.max_memory_bytes)));
  }
  parts.push_back(fmt::format("{} queued, {} running", stats.queued, stats.running));
  return parts;
}

}  // namespace

std::string FormatPercent(double progress) {
  const double share = std::isfinite(progress) ? std::clamp(progress, 0.0, 1.0) : 0;
  return fmt::format("{}%", static_cast<int>(share * 100));
}

std::string FormatJobTable(std::span<const JobRow> rows, int width) {
  std::vector<Cells> lines(1);
  for (size_t column = 0; column < kColumns; ++column) lines[0][column] = kTitles[column];
  for (const JobRow& row : rows) lines.push_back(CellsOf(row));

  std::array<int, kColumns> widths{};
  std::array<bool, kColumns> shown{};
  shown.fill(true);
  for (const Cells& line : lines) {
    for (size_t column = 0; column < kReason; ++column) {
      widths[column] = std::max(widths[column], DisplayWidth(line[column]));
    }
  }
  const auto used = [&] {
    int columns = 0;
    for (size_t column = 0; column < kReason; ++column) {
      if (shown[column]) columns += widths[column] + kBetweenColumns;
    }
    return columns;
  };
  if (width > 0) {
    for (const Column column : kFirstToGo) {
      if (used() + kFewestReasonColumns <= width) break;
      shown[column] = false;
    }
  }

  std::string table;
  for (const Cells& cells : lines) {
    std::string line;
    for (size_t column = 0; column < kReason; ++column) {
      if (!shown[column]) continue;
      line += kAlignedRight[column] ? PadLeft(cells[column], widths[column])
                                    : PadRight(cells[column], widths[column]);
      line += std::string(kBetweenColumns, ' ');
    }
    line += cells[kReason];
    line.erase(line.find_last_not_of(' ') + 1);
    table += (width > 0 ? TruncateToWidth(line, width) : line) + "\n";
  }
  return table;
}

std::string FormatJobLine(const JobRow& row) {
  const Cells cells = CellsOf(row);
  std::string line = fmt::format("job {} of {}: {}", cells[kId], cells[kUser], cells[kState]);
  if (row.job.state == JobState::kRunning) {
    line += fmt::format(" {}", cells[kProgress]);
    if (row.job.eta_seconds) line += fmt::format(", {} left", cells[kEta]);
  }
  if (row.job.state == JobState::kDone && row.job.elapsed_seconds) {
    line += fmt::format(" in {}", cells[kElapsed]);
  }
  if (!cells[kReason].empty()) line += fmt::format(", {}", cells[kReason]);
  return line;
}

std::string FormatJob(const JobRow& row) {
  const JobView& job = row.job;
  std::string text = Labelled("job", fmt::format("{}", job.id)) + Labelled("user", row.user) +
                     Labelled("state", std::string(JobStateName(job.state)));
  if (!IsFinished(job.state) && !job.reason.empty()) text += Labelled("reason", job.reason);
  if (!job.error.empty()) text += Labelled("error", job.error);
  if (!job.redacted) {
    text += Labelled("queries", job.queries_path) + Labelled("docs", job.docs_path) +
            Labelled("output", job.output_path) +
            Labelled("size", fmt::format("{} x {}, dim {}, k={}",
                                         Plural(job.shape.num_queries, "query", "queries"),
                                         Plural(job.shape.num_docs, "doc", "docs"), job.shape.dim,
                                         job.shape.k));
  }
  text += Labelled("priority", fmt::format("{}", job.priority));
  if (job.attempt > 1) text += Labelled("attempt", fmt::format("{}", job.attempt));
  if (job.state != JobState::kQueued) text += Labelled("progress", FormatPercent(job.progress));
  text += Labelled("submitted", WallClock(job.submitted_at));
  if (job.started_at) text += Labelled("started", WallClock(job.started_at));
  if (job.finished_at) text += Labelled("finished", WallClock(job.finished_at));
  if (job.elapsed_seconds) text += Labelled("elapsed", Duration(job.elapsed_seconds));
  if (!IsFinished(job.state) && job.eta_seconds) text += Labelled("ETA", Duration(job.eta_seconds));
  if (!job.device.empty()) text += Labelled("device", job.device);
  if (!job.docs.empty()) text += Labelled("docs were", job.docs);
  return text;
}

std::string FormatDevice(const StatsReply& stats, const std::string& running_user, int width) {
  std::string line;
  for (const std::string& part : DeviceParts(stats, running_user)) {
    line += (line.empty() ? "device: " : "; ") + OneLine(part);
  }
  std::string text = (width > 0 ? TruncateToWidth(line, width) : line) + "\n";
  // Whole, however long: nothing else tells why jobs are refused.
  if (stats.stopping) {
    text += "stopping: the daemon ends soon, and takes no new jobs\n";
  } else if (stats.draining) {
    text +=
        "draining: no new jobs are taken, and the daemon ends after the last one; 'tiny-knn drain "
        "--undo' takes that back\n";
  }
  if (stats.journal != "ok" && !stats.journal.empty()) {
    text += fmt::format("journal: {}\n", OneLine(stats.journal));
  }
  return text;
}

}  // namespace tiny_knn
