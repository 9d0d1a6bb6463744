#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace tiny_knn {
namespace {

std::atomic<int> caught_signal = 0;
std::atomic<int> caught_signals = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free");

void Remember(int signal) {
  int none = 0;
  caught_signal.compare_exchange_strong(none, signal, std::memory_order_relaxed);
  caught_signals.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

void CatchInterrupts() {
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction before {};
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    struct sigaction action {};
    action.sa_handler = Remember;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;  // file reads and writes go on; the job asks between them
    sigaction(signal, &action, nullptr);
  }
}

int CaughtSignal() { return caught_signal.load(std::memory_order_relaxed); }

int CaughtSignals() { return caught_signals.load(std::memory_order_relaxed); }

}  // namespace tiny_knn
