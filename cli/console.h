// Where a verb's words go: data to standard output, everything else to standard error, one line at
// a time, in text or (for programs that watch) in JSON.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

// Thread-compatible. Owns no file descriptor.
class Console {
 public:
  enum class Style { kText, kJson };

  // Set by the verb once its flags are known. With kJson every line on standard error is one JSON
  // object with a member "event".
  void set_style(Style style) { style_ = style; }
  void set_quiet(bool quiet) { quiet_ = quiet; }
  void set_verbose(bool verbose) { verbose_ = verbose; }
  Style style() const { return style_; }
  bool quiet() const { return quiet_; }
  bool verbose() const { return verbose_; }

  // Data: buffered, written by Flush or when there is much of it.
  void Out(std::string_view text);

  // Writes what is buffered. A reader that went away (EPIPE: `| head`) is not an error; any other
  // failure is ResourceExhausted, once.
  absl::Status Flush();

  // True once the reader of standard output has gone: nothing more needs to be made for it.
  bool reader_gone() const { return reader_gone_; }

  // One line on standard error: something the user should know. Not when quiet.
  void Note(std::string_view text);
  // A line of detail, only when verbose.
  void Detail(std::string_view text);
  // How it went, when all is done; `json` is the object printed in JSON style. Not when quiet.
  void Summary(std::string_view text, std::string_view json);
  // The one line that says why nothing came of it.
  void Error(std::string_view text);
  // Bytes as they are, for progress.
  void RawErr(std::string_view text);

 private:
  void Line(std::string_view event, std::string_view label, std::string_view text);

  Style style_ = Style::kText;
  bool quiet_ = false;
  bool verbose_ = false;
  bool reader_gone_ = false;
  std::string buffer_;
  absl::Status failure_;
};

// `text` as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD.
std::string JsonString(std::string_view text);

// Columns of the terminal behind `fd`, or 0 when it is no terminal or does not say.
int TerminalWidth(int fd);

// Makes sure that descriptors 0, 1 and 2 are open (on /dev/null if they were closed), so that no
// output file can get the number of standard output by accident; and turns SIGPIPE and SIGXFSZ (a
// limit on file sizes) into errors of the write that caused them.
void PrepareStandardStreams();

}  // namespace tiny_knn
