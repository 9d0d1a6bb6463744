#include "cli/search_report.h"

#include <unistd.h>

#include <algorithm>
#include <optional>

#include "cli/text.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {

void SayReport(const JobSpec& spec, const PreparedJob& job, const JobReport& report,
               std::string_view docs, Console& console) {
  for (const std::string& note : JobNotes(spec, job, report)) console.Note(note);
  const double queries = static_cast<double>(std::max<int64_t>(report.num_queries, 1));
  if (report.search.refined_pairs > 0) {
    console.Detail(fmt::format("{} pairs survived codes, {:.1f} a query",
                               report.search.refined_pairs,
                               static_cast<double>(report.search.refined_pairs) / queries));
  }
  if (report.search.repeated_queries > 0) {
    console.Detail(fmt::format("{} searched again: the threshold guessed for them was too high",
                               Plural(report.search.repeated_queries, "query", "queries")));
  }
  console.Detail(fmt::format("{} pairs rescored exactly, {:.1f} a query, {} to write",
                             report.search.rescored_pairs,
                             static_cast<double>(report.search.rescored_pairs) / queries,
                             FormatSeconds(report.write_seconds)));
  const double rate =
      static_cast<double>(report.num_queries) / std::max(report.search_seconds, 1e-9);
  console.Summary(fmt::format("{} x {}, dim {}, k={}, {}: {}, {} queries/s{}",
                              Plural(report.num_queries, "query", "queries"),
                              Plural(report.num_docs, "doc", "docs"), report.dim, report.k,
                              report.device, FormatSeconds(report.search_seconds), FormatRate(rate),
                              docs.empty() ? "" : fmt::format(", docs {}", docs)),
                  // The report's own members follow the event's name.
                  "{\"event\":\"done\"," + JobReportToJson(report).substr(1));
}

void NoteDefaultK(const PreparedJob& job, Console& console) {
  if (const std::optional<std::string> note = DefaultKNote(job)) console.Note(*note);
}

void PrintPath(const std::string& path, Console& console) {
  console.Out((isatty(STDOUT_FILENO) != 0 ? OneLine(path) : path) + "\n");
}

}  // namespace tiny_knn
