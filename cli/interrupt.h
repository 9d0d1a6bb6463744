// Ctrl-C and SIGTERM as a question that a running job asks: "may I go on?"
#pragma once

namespace tiny_knn {

// From now on SIGINT, SIGTERM, SIGHUP and SIGQUIT are remembered instead of ending the process, so
// that a job can stop without leaving half a file. A signal that was ignored on entry (nohup) stays
// ignored.
void CatchInterrupts();

// The number of the first signal caught, or 0. Safe to call from any thread; costs one load.
int CaughtSignal();

// How many were caught: a second Ctrl-C may mean more than the first. As CaughtSignal.
int CaughtSignals();

}  // namespace tiny_knn
