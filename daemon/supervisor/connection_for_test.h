// A stand-in for a connection, for those who only tell connections apart.
#pragma once

#include <memory>

namespace tiny_knn {

class Connection;

// Never to be used; each is another one.
inline std::shared_ptr<Connection> SomeConnection() {
  const auto owner = std::make_shared<int>();
  return {owner, reinterpret_cast<Connection*>(owner.get())};
}

}  // namespace tiny_knn
