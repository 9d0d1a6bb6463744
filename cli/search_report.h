// What is said of a search, before and after it: the same words whether this process or a daemon
// ran it. The words are core/job/job_report.h's; this is where they go.
#pragma once

#include <string>
#include <string_view>

#include "cli/console.h"
#include "core/job/job_report.h"
#include "core/job/job_spec.h"
#include "core/job/run_job.h"

namespace tiny_knn {

// Of a job that is done, on standard error: the notes and the line at the end. `docs`: "warm" or
// "cold" in a daemon, else empty.
void SayReport(const JobSpec& spec, const PreparedJob& job, const JobReport& report,
               std::string_view docs, Console& console);

// Says that the default k was not to be had, if so.
void NoteDefaultK(const PreparedJob& job, Console& console);

// The result's path on standard output: byte for byte for a program, harmless on a terminal.
void PrintPath(const std::string& path, Console& console);

}  // namespace tiny_knn
