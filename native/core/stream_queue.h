// Queues of operations that are linked through the operations themselves: appending, and taking one out wherever it stands, cost the same
// however many there are. Used by the port's driver only.
#pragma once

#include "core/operation.h"

namespace cp {

template <Operation* Operation::*kPrevious, Operation* Operation::*kNext>
class OperationQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  Operation* head() const { return head_; }
  uint32_t size() const { return size_; }

  void Push(Operation& op) {
    op.*kPrevious = tail_;
    op.*kNext = nullptr;
    (tail_ != nullptr ? tail_->*kNext : head_) = &op;
    tail_ = &op;
    size_++;
  }

  // Back to where it was taken from.
  void PushFront(Operation& op) {
    op.*kPrevious = nullptr;
    op.*kNext = head_;
    (head_ != nullptr ? head_->*kPrevious : tail_) = &op;
    head_ = &op;
    size_++;
  }

  void Remove(Operation& op) {
    CP_ASSERT(size_ > 0 && (op.*kPrevious != nullptr || head_ == &op) && (op.*kNext != nullptr || tail_ == &op));
    (op.*kPrevious != nullptr ? (op.*kPrevious)->*kNext : head_) = op.*kNext;
    (op.*kNext != nullptr ? (op.*kNext)->*kPrevious : tail_) = op.*kPrevious;
    op.*kPrevious = op.*kNext = nullptr;
    size_--;
  }

 private:
  Operation* head_ = nullptr;
  Operation* tail_ = nullptr;
  uint32_t size_ = 0;
};

// The operations of one handle and one direction, in starting order. Of a stream at most the first is with the kernel, the next goes
// when the first has ended: of two pending recvs the kernel may give the first bytes to the second, and two large sends mix (seen on
// Linux 6.18).
using StreamQueue = OperationQueue<&Operation::queue_previous, &Operation::queue_next>;

// Operations that wait for room with the OS, in the order in which their turns have come.
using Backlog = OperationQueue<&Operation::backlog_previous, &Operation::backlog_next>;

}  // namespace cp
