// The objects that a pickle may make: numpy arrays, their dtypes, and bytes. Names select what is
// done here; nothing is looked up or run.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/pickle_value.h"

namespace tiny_knn {

// The callable of that name, in numpy 1 or 2, or nothing.
std::optional<PickleCallable> FindPickleCallable(std::string_view module, std::string_view name);

// What calling `callable` with `arguments` (a value of `document`) gives. Bytes that have to be
// decoded go to document.owned and are taken from `owned_budget`. Errors are InvalidArgument.
absl::StatusOr<PickleValue> CallPickled(PickleCallable callable, const PickleValue& arguments,
                                        PickleDocument& document, size_t& owned_budget);

// Gives `target` (a dtype or an array of `document`) the state that a pickle kept for it.
absl::Status SetPickledState(const PickleValue& state, const PickleDocument& document,
                             PickleValue& target);

// Text of the input, fit for one line of a message.
std::string ShownPickleText(std::string_view text);

}  // namespace tiny_knn
