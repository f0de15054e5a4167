// The operations of one handle and one direction, in starting order. Of a stream at most the first is with the kernel, the next goes
// when the first has ended: of two pending recvs the kernel may give the first bytes to the second, and two large sends mix (seen on
// Linux 6.18). Used by the port's driver only.
#pragma once

#include "core/operation.h"

namespace cp {

class StreamQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  Operation* head() const { return head_; }

  void Push(Operation& op) {
    op.queue_next = nullptr;
    if (tail_ != nullptr)
      tail_->queue_next = &op;
    else
      head_ = &op;
    tail_ = &op;
  }

  // Takes the operation out wherever it stands; O(1) for the head, which is the usual case.
  void Remove(Operation& op) {
    Operation* previous = nullptr;
    for (Operation* at = head_; at != nullptr; previous = at, at = at->queue_next) {
      if (at != &op) continue;
      if (previous != nullptr)
        previous->queue_next = op.queue_next;
      else
        head_ = op.queue_next;
      if (tail_ == &op) tail_ = previous;
      op.queue_next = nullptr;
      return;
    }
    CP_ASSERT(!"operation is not in this queue");
  }

 private:
  Operation* head_ = nullptr;
  Operation* tail_ = nullptr;
};

}  // namespace cp
