// What wakes one attached thread of a shared port, blocked or in its event loop, on POSIX: a condition, or in a long sleep
// a descriptor; and a descriptor for libuv.
#pragma once

#include <atomic>
#include <memory>

#include "core/port.h"
#include "core/waiters.h"
#include "posix/signal_descriptor.h"

namespace cp::posix {

class LoopNotifier final : public ThreadNotifier {
 public:
  // Null: *error, an errno, says what is short.
  static std::shared_ptr<LoopNotifier> Create(int* error);

  ~LoopNotifier() override;

  void Notify() override;
  int notification_fd() const override { return signal_.descriptor(); }
  void ClearNotification() override;
  void RaiseNotification() override;

 protected:
  bool CanDoze(int loop_descriptor) override;
  bool Doze(double timeout_ms) override;
  void EndDoze() override { doze_.Raise(); }

 private:
  LoopNotifier() = default;
  SignalDescriptor signal_;
  // Both opened by the first CanDoze. Not `signal_`, which the thread's event loop, or a thread that waits for it, may clear.
  SignalDescriptor doze_;
  int doze_epoll_ = -1;  // watches `doze_` and the event loop's descriptor
  std::atomic<bool> notified_{false};
};

}  // namespace cp::posix
