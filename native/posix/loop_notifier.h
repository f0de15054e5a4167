// What wakes one attached thread of a shared port, blocked or in its event loop, on POSIX: a condition, and a descriptor for libuv.
#pragma once

#include <atomic>
#include <memory>

#include "core/port.h"
#include "core/waiters.h"

namespace cp::posix {

class LoopNotifier final : public Wake, public LoopSource {
 public:
  // Null: no descriptor left.
  static std::shared_ptr<LoopNotifier> Create();
  ~LoopNotifier() override;

  void Notify() override;
  int notification_fd() const override { return fd_; }
  void ClearNotification() override;
  void RaiseNotification() override;

 private:
  explicit LoopNotifier(int fd) : fd_(fd) {}
  const int fd_;
  std::atomic<bool> notified_{false};
};

}  // namespace cp::posix
